"""The embedded town as a world, in process: no carla package, no sockets. For logs, branches and tests."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drivesim.datatypes import (
    ACTOR_PROP,
    ACTOR_VEHICLE,
    ACTOR_WALKER,
    ActorStates,
    CameraRig,
    Contact,
    Control,
    EgoState,
    Frame,
    LightStates,
    Scenario,
)
from drivesim.geometry import Pose
from drivesim.town.roads import RoadNetwork
from drivesim.town.scenery import scenery
from drivesim.town.state import (
    KIND_FREE,
    KIND_PROP,
    KIND_VEHICLE,
    KIND_WALKER,
    POLICY_EXTERNAL,
    POLICY_KINEMATIC,
    TownState,
)
from drivesim.town.town import Town
from drivesim.worlds.carla_frames import camera_body, mirrored, mirrored_yaw, pose_from_carla, pose_to_carla
from drivesim.worlds.cast import Cast, in_the_way
from drivesim.worlds.ego_motion import EGO_AXLE_TO_CENTER_M, EGO_BLUEPRINT, EgoMotion
from drivesim.worlds.errors import ScenarioError
from drivesim.worlds.routes import RoutePlan, lane_map, plan_route
from drivesim.worlds.variation import Variation, generator, vary

Array = NDArray[np.float64]

TRAFFIC_RADIUS_M = 160.0
SCENERY_SEED = 0
KIND_OF = {KIND_VEHICLE: ACTOR_VEHICLE, KIND_WALKER: ACTOR_WALKER, KIND_PROP: ACTOR_PROP}
_KINDS = np.array([KIND_OF.get(kind, ACTOR_PROP) for kind in range(4)], np.uint8)
_CONTACT_NAMES = {KIND_VEHICLE: "vehicle", KIND_WALKER: "walker"}


@dataclass(frozen=True)
class Moment:
    """All that time changes in a TownWorld: what `TownWorld.go_back` needs to be there again."""

    state: TownState
    motion: EgoMotion
    cast: Cast
    rows: tuple[int, ...]
    tick: int
    near_s_m: float
    frame: Frame


class TownWorld:
    """See `drivesim.interfaces.World`.

    Attributes:
        town: the live town (CARLA's frame).
        ego_row: the ego's row in `town.state`.
        route: the route being driven.
        variation: what the seed made of the scenario.
    """

    town: Town
    route: RoutePlan
    variation: Variation
    ego_row: int

    def __init__(self, rig: CameraRig | None = None, *, camera_period_s: float = 0.25, appearance: Any = None) -> None:
        """A world without an episode.

        Args:
            rig: cameras; None renders nothing.
            camera_period_s: time between pictures.
            appearance: how it looks (`drivesim.town.render.Appearance`); by the scenario's weather when None.
        """
        self.rig, self.camera_period_s, self._fixed_appearance = rig, camera_period_s, appearance
        self._scenario: Scenario | None = None

    def reset(self, scenario: Scenario, seed: int) -> Frame:
        """Build the scenario and return its first tick.

        Raises:
            ScenarioError, RouteError, ConfigError: it cannot be set up.
        """
        self.route, self.variation = plan_route(scenario), vary(scenario, seed)
        lanes = lane_map(scenario.town)
        self._scenario, self._seed = scenario, seed
        self.town = Town(lanes.network, seed=self.variation.traffic_seed, solids=town_solids(scenario.town))
        self.town.state.weather[:] = self.variation.weather
        self._motion, self._tick, self._near_s_m = EgoMotion(), 0, self.variation.start_s_m
        self.ego_row = self._spawn_ego()
        self._cast = Cast(self.variation.actors, self.route, lanes)
        self._rows = [self._spawn_scripted(index) for index in range(len(self._cast.scripts))]
        self._populate(scenario, generator(scenario, seed, "traffic"))
        self._appearance = self._fixed_appearance
        self._apply_lights()
        self._frame = self._observe()
        return self._frame

    def step(self, control: Control) -> Frame:
        """Advance by the scenario's dt under `control`."""
        self._advance(control)
        self._frame = self._observe()
        return self._frame

    def moment(self) -> Moment:
        """This tick, to come back to. With `go_back` and `branch_step` a drive can be tried out exactly."""
        rows = tuple(self._rows)
        return Moment(self.town.copy_state(), copy.copy(self._motion), self._cast.branch(), rows, self._tick,
                      self._near_s_m, self._frame)  # fmt: skip

    def go_back(self, moment: Moment) -> Frame:
        """Be at a moment of this episode again, as if nothing had happened since."""
        self.town.restore(moment.state)
        self._motion, self._cast, self._rows = copy.copy(moment.motion), moment.cast.branch(), list(moment.rows)
        self._tick, self._near_s_m, self._frame = moment.tick, moment.near_s_m, moment.frame
        return self._frame

    def branch_step(self, control: Control) -> Frame:
        """`step` for trying out: the same tick, without pictures and with the route as it was last seen."""
        self._advance(control)
        time_us = round(self._tick * self._dt_s * 1e6)
        self._frame = Frame(time_us, None, self._ego_state(time_us), actor_states(self.town, self.ego_row),
                            light_states(self.town), self._frame.route, contacts=self._contacts(time_us))  # fmt: skip
        return self._frame

    def _advance(self, control: Control) -> None:
        if self._scenario is None:
            raise RuntimeError("reset the world before stepping it")
        control.validate()
        dt_s = self._scenario.dt_s
        ids = [int(self.town.state.actor_id[row]) if row >= 0 else -2 for row in self._rows]
        self._cast.advance(self._frame, ids, dt_s)
        for index in range(len(self._rows)):
            self._move_scripted(index)
        self._apply_lights()
        self.town.set_control(self.ego_row, control.throttle, -control.steer, control.brake)
        self.town.step(dt_s)
        self._tick += 1

    def close(self) -> None:
        """Nothing to give back."""
        self._scenario = None

    @property
    def renderer(self) -> Any:
        """The town's renderer, made once per process."""
        return town_renderer(self.town.network.name)

    def render(self, rig: CameraRig, appearance: Any = None) -> NDArray[np.uint8]:
        """(v, h, w, 3) RGB of the rig's cameras at this tick; `appearance` None is the episode's own."""
        look = appearance if appearance is not None else self.appearance
        return picture(self.renderer, self.town.state, self.ego_row, self.world_from_ego, rig, look, self._tick)

    @property
    def appearance(self) -> Any:
        """How the episode looks: what was given, or what its weather and seed say."""
        if self._appearance is None:
            from drivesim.town.render import Appearance

            self._appearance = Appearance.from_weather(self.town.state.weather, self.variation.traffic_seed)
        return self._appearance

    @property
    def world_from_ego(self) -> Pose:
        """Pose of the ego frame in our world frame, now."""
        return self._frame.ego.world_from_ego

    # ------------------------------------------------------------------ setting up
    def _spawn_ego(self) -> int:
        place = self.route.place(self.variation.start_s_m)
        x = place.x_m + EGO_AXLE_TO_CENTER_M * math.cos(place.yaw_rad)
        y = place.y_m + EGO_AXLE_TO_CENTER_M * math.sin(place.yaw_rad)
        row = self.town.spawn(EGO_BLUEPRINT, x, -y, place.z_m, -place.yaw_rad, policy=POLICY_EXTERNAL)
        if row < 0:
            raise ScenarioError(f"no room for the ego at the start of the route ({x:.1f}, {y:.1f})")
        self.town.teleport(row, x, -y, place.z_m, -place.yaw_rad, speed_mps=self.variation.start_speed_mps)
        return row

    def _spawn_scripted(self, index: int) -> int:
        spec, at = self._cast.scripts[index].spec, self._cast.placement(index)
        x, y, yaw = (float(value) for value in at.pose)
        row = self.town.spawn(spec.blueprint, x, -y, at.z_m, -yaw, policy=POLICY_KINEMATIC)
        if row < 0:
            raise ScenarioError(
                f"no room for scripted actor {index} ({spec.behavior}) at route_s_m = {spec.route_s_m:.1f}, "
                f"lateral_m = {spec.lateral_m:.1f}: it stands in another actor or in scenery"
            )
        self._place_row(row, index)
        return row

    def _populate(self, scenario: Scenario, rng: np.random.Generator) -> None:
        if scenario.traffic_vehicles == 0 and scenario.traffic_walkers == 0:
            return
        middle = self.route.place(0.5 * self.route.length_m)
        rows = self.town.populate(
            scenario.traffic_vehicles, scenario.traffic_walkers, near=(middle.x_m, -middle.y_m),
            radius_m=TRAFFIC_RADIUS_M + 0.5 * self.route.length_m, rng=rng,
        )  # fmt: skip
        for row in rows:
            x, y, _ = self.town.state.xyz[row]
            if self.town.state.kind[row] == KIND_VEHICLE and in_the_way(self.route, self.variation.start_s_m, x, -y):
                self.town.destroy(row)

    # ------------------------------------------------------------------ each tick
    def _move_scripted(self, index: int) -> None:
        row = self._rows[index]
        if row < 0:
            return
        if self._cast.states[index].gone:
            self.town.destroy(row)
            self._rows[index] = -1
            return
        self._place_row(row, index)

    def _place_row(self, row: int, index: int) -> None:
        at = self._cast.placement(index)
        x, y, yaw = (float(value) for value in at.pose)
        velocity = mirrored(at.velocity_mps)
        forward = float(velocity[0]) * math.cos(-yaw) + float(velocity[1]) * math.sin(-yaw)
        self.town.teleport(row, x, -y, at.z_m, -yaw, speed_mps=forward)
        self.town.state.velocity[row, :2] = velocity

    def _apply_lights(self) -> None:
        for light, value in self._cast.light_states(self._tick * self._dt_s).items():
            if self.town.state.light_state[light] != value or not self.town.state.light_frozen[light]:
                self.town.set_light(light, value)
                self.town.state.light_frozen[light] = 1

    @property
    def _dt_s(self) -> float:
        return 0.05 if self._scenario is None else self._scenario.dt_s

    def _observe(self) -> Frame:
        time_us, row = round(self._tick * self._dt_s * 1e6), self.ego_row
        ego = self._ego_state(time_us)
        self._near_s_m, _ = self.route.project(ego.x_m, ego.y_m, self._near_s_m)
        frame = Frame(time_us, None, ego, actor_states(self.town, row), light_states(self.town),
                      self.route.ahead(ego, self._near_s_m), contacts=self._contacts(time_us))  # fmt: skip
        self._frame = frame
        period = max(round(self.camera_period_s / self._dt_s), 1)
        if self.rig is not None and self._tick % period == 0:
            frame = Frame(time_us, self.render(self.rig), ego, frame.actors, frame.lights, frame.route,
                          contacts=frame.contacts)  # fmt: skip
        return frame

    def _ego_state(self, time_us: int) -> EgoState:
        s, row = self.town.state, self.ego_row
        center = pose_from_carla(s.xyz[row], s.rotation[row])
        vx, vy = mirrored(s.velocity[row, :2])
        return self._motion.state(time_us, center, _axle_velocity(center, float(vx), float(vy)))

    def _contacts(self, time_us: int) -> tuple[Contact, ...]:
        found: list[Contact] = []
        for contact in self.town.collisions:
            rows = int(contact["row_a"]), int(contact["row_b"])
            if self.ego_row not in rows:
                continue
            other = rows[1] if rows[0] == self.ego_row else rows[0]
            impulse = float(np.linalg.norm(contact["impulse"]))
            if other < 0:
                found.append(Contact(time_us, -1, "static", impulse))
            else:
                kind = _CONTACT_NAMES.get(int(self.town.state.kind[other]), "static")
                found.append(Contact(time_us, int(self.town.state.actor_id[other]), kind, impulse))
        return tuple(found)


def _axle_velocity(center: Pose, vx: float, vy: float) -> tuple[float, float]:
    """The velocity along the heading is the same at the centre and the axle: what is across it is turned off."""
    yaw = center.yaw_rad
    forward = vx * math.cos(yaw) + vy * math.sin(yaw)
    return forward * math.cos(yaw), forward * math.sin(yaw)


def actor_states(town: Town, without_row: int = -1) -> ActorStates:
    """Everybody in a town but one row, in our frame."""
    s = town.state
    rows = np.flatnonzero(s.kind != KIND_FREE)
    rows = rows[rows != without_row]
    pose = np.column_stack([mirrored(s.xyz[rows]), mirrored_yaw(s.rotation[rows, 2])])
    return ActorStates(s.actor_id[rows].astype(np.int64), _KINDS[s.kind[rows]], pose, 2.0 * s.half_size[rows],
                       mirrored(s.velocity[rows, :2]))  # fmt: skip


def light_states(town: Town) -> LightStates:
    """All stop lines with a light, in our frame."""
    static = stop_lines(town.network)
    return LightStates(town.state.light_state[static[0]].copy(), static[1], static[2])


def stop_lines(network: RoadNetwork) -> tuple[NDArray[np.intp], Array, Array]:
    """Stop lines that a light governs: its row (q,), pose (q, 4) and half width (q,), in our frame."""
    rows = np.flatnonzero(network.stop_light >= 0)
    yaw = mirrored_yaw(network.stop_yaw_rad[rows].astype(np.float64))
    pose = np.column_stack([mirrored(network.stop_xyz_m[rows]), yaw])
    return network.stop_light[rows].astype(np.intp), pose, network.stop_half_width_m[rows].astype(np.float64)


def rig_views(rig: CameraRig, world_from_ego: Pose) -> Any:
    """The rig's cameras as the renderer's `Views`.

    Raises:
        ValueError: cameras of different sizes.
    """
    from drivesim.town.render import Views

    sizes = {(camera.width_px, camera.height_px) for camera in rig.cameras}
    if len(sizes) != 1:
        raise ValueError(f"rig {rig.id} mixes picture sizes {sorted(sizes)}: the town renders one size at a time")
    width, height = sizes.pop()
    placed = [pose_to_carla(world_from_ego.compose(camera_body(camera))) for camera in rig.cameras]
    return Views(
        position_m=np.array([location for location, _ in placed]),
        rotation_rad=np.array([rotation for _, rotation in placed]),
        fov_rad=np.array([camera.fov_rad for camera in rig.cameras]), width=width, height=height,
    )  # fmt: skip


def picture(
    renderer: Any, state: TownState, row: int, world_from_ego: Pose, rig: CameraRig, look: Any, seed: int
) -> NDArray[np.uint8]:
    """The rig's pictures (cameras, h, w, 3) RGB of a state, the ego itself (its row) not drawn."""
    drawn = renderer.render(state, rig_views(rig, world_from_ego), look, frame_seed=seed, hide_row=row)
    return np.ascontiguousarray(drawn.bgra[..., 2::-1])


@lru_cache(maxsize=2)
def town_renderer(town: str) -> Any:
    """The renderer of a town, made once per process."""
    from drivesim.town.render import TownRenderer

    return TownRenderer(lane_map(town).network, seed=SCENERY_SEED)


@lru_cache(maxsize=4)
def town_solids(town: str) -> Array:
    """Static boxes of the town's scenery; the embedded server has the same."""
    return np.asarray(scenery(lane_map(town).network, SCENERY_SEED).solids, np.float64)
