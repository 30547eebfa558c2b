"""Imagination as a world: a predictor is a world without pictures, so the same planner and loop run in it.

From a logged start a planner acts, the predictor answers, frozen heads judge, and the ego's motion is
integrated analytically (`drivesim.worlds.imagined_batch`, which does many drives at once). Where a world
has pictures this one has the latent; a latent planner takes it where it would encode pictures
(`ImaginedSight`). What `Frame` calls truth is what the probes read: the lead, and whether the light ahead
is closed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drivesim.config import ConfigError
from drivesim.datatypes import (
    ACTOR_VEHICLE,
    LIGHT_GREEN,
    LIGHT_OFF,
    LIGHT_RED,
    LIGHT_YELLOW,
    ActorStates,
    CameraRig,
    Contact,
    Control,
    EgoState,
    EndReason,
    Event,
    Frame,
    LatentState,
    LightStates,
    Scenario,
)
from drivesim.worlds.imagined_batch import (
    Floats,
    ImaginationConfig,
    ImaginationCore,
    ImaginedBatch,
    Kinematics,
    LatentStart,
)
from drivesim.worlds.routes import RoutePlan

LEAD_ID = 1
LEAD_SIZE_M = (4.6, 2.0, 1.5)
LIGHT_AHEAD_M = 40.0  # how far the probe was taught to see a light


class LatentWorld:
    """One imagined drive as a `drivesim.interfaces.World`; the starts are its scenarios.

    Attributes:
        route: of the present start.
        end: why imagination cannot go on, or None (a collision ends it: what follows was never learned).
    """

    route: RoutePlan

    def __init__(
        self,
        model: ImaginationCore,
        kinematics: Kinematics,
        starts: Iterable[LatentStart],
        config: ImaginationConfig | None = None,
        *,
        told: bool = False,
    ) -> None:
        """A world that can start where the logs have been.

        Args:
            told: frames show others and lights as the log had them, for a privileged planner, not as the probes read.
        """
        self.model, self.kinematics, self.config = model, kinematics, config
        self._frame = told_frame if told else frame_of
        self.starts = {start.scenario.id: start for start in starts}
        self.end: EndReason | None = None
        self._batch: ImaginedBatch | None = None

    @property
    def scenarios(self) -> list[Scenario]:
        """One for every start."""
        return [start.scenario for start in self.starts.values()]

    @property
    def batch(self) -> ImaginedBatch:
        """The drive.

        Raises:
            RuntimeError: before `reset`.
        """
        if self._batch is None:
            raise RuntimeError("reset the world before stepping it")
        return self._batch

    def reset(self, scenario: Scenario, seed: int) -> Frame:
        """Go to a logged start.

        Raises:
            ConfigError: the scenario is none of this world's starts.
        """
        if scenario.id not in self.starts:
            raise ConfigError(f"{scenario.id!r} is no start of these logs; `scenarios` lists the {len(self.starts)}")
        start = self.starts[scenario.id]
        self.route, self.end = start.route, None
        self._batch = ImaginedBatch(self.model, self.kinematics, [start], [seed], self.config)
        return self._frame(self._batch, 0)

    def step(self, control: Control) -> Frame:
        """Advance by the start's dt under `control`."""
        control.validate()
        batch, told = self.batch, len(self.batch.events[0])
        batch.step(np.array([[control.steer, control.throttle, control.brake]]))
        batch.settle()
        self.end = batch.ends[0] if batch.ends[0] is EndReason.COLLISION else None
        hits = tuple(
            Contact(event.time_us, -1, event.kind.removeprefix("collision_"), event.value)
            for event in batch.events[0][told:]
            if event.kind != "red_light"
        )
        return replace(self._frame(batch, 0), contacts=hits)

    def reported_events(self) -> list[Event]:
        """What the world itself judges: run red lights, since imagination has no stop lines to watch."""
        return [event for event in self.batch.events[0] if event.kind == "red_light"]

    def close(self) -> None:
        """Nothing to give back."""
        self._batch = None


class ImaginedSight:
    """A world model that sees the world's present latent instead of encoding pictures; the rest is the model's.

    Fits wherever a planner takes a `drivesim.planning.latent_planner.ImaginationModel`.
    """

    def __init__(self, model: Any, world: LatentWorld | None = None) -> None:
        """`model` answers everything but `encode`; point `look_at` at a drive of a batch, or give a world."""
        self._model, self._world = model, world
        self._batch: ImaginedBatch | None = None
        self._row = 0

    def look_at(self, batch: ImaginedBatch, row: int) -> None:
        """See one drive of a batch from now on."""
        self._batch, self._row = batch, row

    def encode(self, images: NDArray[np.uint8], rig: CameraRig, ego: EgoState) -> LatentState:
        """The world's present latent (n, d); the pictures are not looked at.

        Raises:
            RuntimeError: there is nothing to look at.
        """
        batch = self._world.batch if self._world is not None else self._batch
        if batch is None:
            raise RuntimeError("imagined sight needs a world or a batch: call look_at")
        return LatentState(batch.current[self._row], ego.time_us, batch.model.digest)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


def ego_of(batch: ImaginedBatch, row: int) -> EgoState:
    """The ego of one drive, at the height where it started and on level ground."""
    m, first = batch.motions, batch.starts[row].frame.ego
    return EgoState(
        round(batch.time_s * 1e6), float(m.x_m[row]), float(m.y_m[row]), first.z_m, 0.0, 0.0, float(m.yaw_rad[row]),
        float(m.speed_mps[row]), float(batch.acceleration_mps2[row]), float(batch.yaw_rate_radps[row]),
        first.length_m, first.width_m, first.rear_axle_to_center_m,
    )  # fmt: skip


def frame_of(batch: ImaginedBatch, row: int) -> Frame:
    """One drive's present tick; at latent ticks with the latent as its picture."""
    ego, route = ego_of(batch, row), batch.starts[row].route
    s = float(batch.motions.s_m[row])
    picture = latent_picture(batch.current[row]) if batch.at_latent_tick else None
    read = batch.read_of(row)
    actors, lights = imagined_lead(read, ego, route, s), imagined_lights(read, batch.starts[row], s)
    return Frame(round(batch.time_s * 1e6), picture, ego, actors, lights, route.ahead(ego, s))


def told_frame(batch: ImaginedBatch, row: int) -> Frame:
    """One drive's present tick for a planner that is told the truth: others and lights as the log had them by then.

    Imagination holds no truth, and what the probes read is too little to drive by for who expects to know it all.
    So others move as they did, and do not answer to what is driven here. Where the log is over its last tick stays.
    Red is shown as yellow, as in `imagined_lights`.
    """
    frame, logged = frame_of(batch, row), batch.starts[row].logged
    if not logged:
        return frame
    then = logged[min(batch.tick // batch.latent_ticks, len(logged) - 1)]
    states = np.where(then.lights.states == LIGHT_RED, LIGHT_YELLOW, then.lights.states)
    return replace(frame, actors=then.actors, lights=replace(then.lights, states=states))


def latent_picture(tokens: Floats) -> NDArray[np.uint8]:
    """A latent (n, d) drawn as (1, n, d, 3) grey levels: for reports; no planner can drive by it."""
    levels = np.clip(128.0 + 42.0 * tokens, 0.0, 255.0).astype(np.uint8)
    return np.repeat(levels[None, :, :, None], 3, axis=-1)


def imagined_lead(read: dict[str, float], ego: EgoState, route: RoutePlan, s_m: float) -> ActorStates:
    """The car ahead as the probe reads it: on the route, at its gap; nobody where the probe sees nobody."""
    if read.get("lead_present", -1.0) <= 0.0:
        return ActorStates.empty()
    front_m = ego.rear_axle_to_center_m + 0.5 * ego.length_m
    gap_m, speed_mps = max(read.get("lead_gap", 0.0), 0.0), read.get("lead_speed", 0.0)
    place = route.place(s_m + front_m + gap_m + 0.5 * LEAD_SIZE_M[0])
    direction = [math.cos(place.yaw_rad), math.sin(place.yaw_rad)]
    return ActorStates(
        np.array([LEAD_ID]), np.array([ACTOR_VEHICLE], np.uint8),
        np.array([[place.x_m, place.y_m, place.z_m, place.yaw_rad]]), np.array([LEAD_SIZE_M]),
        speed_mps * np.array([direction]),
    )  # fmt: skip


def imagined_lights(read: dict[str, float], start: LatentStart, s_m: float) -> LightStates:
    """The map's stop lines; the next one on the route is open or closed as the probe reads it.

    Closed is shown as yellow: whether a red light was run is the risk head's to say, not the judge's by these.
    """
    known = start.frame.lights
    states = np.full(len(known.states), LIGHT_OFF, np.uint8)
    best, nearest_m = -1, LIGHT_AHEAD_M
    for row, (x, y, _, yaw) in enumerate(known.stop_pose):
        at, aside = start.route.project(float(x), float(y), s_m)
        aligned = math.cos(yaw - float(start.route.curve.at(at)[2])) > 0.7
        if aligned and abs(aside) < 2.0 and 0.0 < at - s_m < nearest_m:
            best, nearest_m = row, at - s_m
    if best >= 0:
        states[best] = LIGHT_YELLOW if read.get("red_light", -1.0) > 0.0 else LIGHT_GREEN
    return LightStates(states, known.stop_pose, known.half_width_m)
