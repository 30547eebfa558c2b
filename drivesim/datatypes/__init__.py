"""Types that travel between rooms (floor 2): frozen, validated, no I/O."""

from drivesim.datatypes.action import Action, Control
from drivesim.datatypes.episode import EndReason, Episode, Event, Snapshot
from drivesim.datatypes.frame import Contact, Frame, Observation, RouteAhead
from drivesim.datatypes.latent import LatentState
from drivesim.datatypes.measure import Estimate, Measure, Outcome, Scorecard
from drivesim.datatypes.plan import Plan, Trajectory
from drivesim.datatypes.rig import Camera, CameraRig, CameraSpec, RigSpec, default_rig
from drivesim.datatypes.scenario import ActorSpec, Scenario, Waypoint, WeatherSpec
from drivesim.datatypes.state import (
    ACTOR_PROP,
    ACTOR_VEHICLE,
    ACTOR_WALKER,
    LIGHT_GREEN,
    LIGHT_OFF,
    LIGHT_RED,
    LIGHT_YELLOW,
    ActorStates,
    EgoState,
    LightStates,
)

__all__ = [
    "ACTOR_PROP", "ACTOR_VEHICLE", "ACTOR_WALKER", "LIGHT_GREEN", "LIGHT_OFF", "LIGHT_RED", "LIGHT_YELLOW",
    "Action", "ActorSpec", "ActorStates", "Camera", "CameraRig", "CameraSpec", "Contact", "Control", "EgoState",
    "EndReason", "Episode", "Estimate", "Event", "Frame", "LatentState", "LightStates", "Measure", "Observation",
    "Outcome", "Plan", "RigSpec", "RouteAhead", "Scenario", "Scorecard", "Snapshot", "Trajectory", "Waypoint",
    "WeatherSpec", "default_rig",
]  # fmt: skip
