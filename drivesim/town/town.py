"""Class Town: one embedded world, stepped in process, deterministic.

All that influences the future is in `Town.state`; `copy_state` and `restore` make exact branches. Frame:
CARLA's (left-handed, yaw clockwise from above), radians and metres. Rows are places in the state's
arrays and are reused; actor ids never are.
"""

from __future__ import annotations

import math
from dataclasses import fields
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drivesim.town import drivers, lane_changes, paths, signals, traffic
from drivesim.town import walkers as people
from drivesim.town.arrays import actors_of, draw, roads_of
from drivesim.town.catalogue import MODELS, SHAPE_TWO_WHEELER, model_row
from drivesim.town.chassis import ordinary_rows
from drivesim.town.contacts import (
    CONTACT,
    MAX_CONTACTS,
    box_overlap,
    overlap_of_rows,
    resolve_contacts,
    solids_of,
)
from drivesim.town.motion import SLIDING
from drivesim.town.physics import step_external
from drivesim.town.queries import LaneMap
from drivesim.town.roads import RoadNetwork
from drivesim.town.state import (
    KIND_FREE,
    KIND_PROP,
    KIND_VEHICLE,
    KIND_WALKER,
    LIGHT_OFF,
    POLICY_EXTERNAL,
    POLICY_KINEMATIC,
    POLICY_PARKED,
    POLICY_TRAFFIC,
    POLICY_WALKER,
    TownState,
)  # fmt: skip
from drivesim.town.weather import preset

MAX_STEP_S = 0.1  # longer ticks are cut into equal parts
MODEL_PHYSICS = ordinary_rows()
STOP_BOX_BEFORE_M, STOP_BOX_AFTER_M = 4.0, 2.0
TRAFFIC_MODELS: tuple[int, ...] = tuple(
    row for row, model in enumerate(MODELS) if model.blueprint.startswith("vehicle.") and model.width_m < 2.6
)
WALKER_MODELS: tuple[int, ...] = tuple(row for row, model in enumerate(MODELS) if model.base_type == "pedestrian")
_MOTION_FIELDS = (
    "velocity", "acceleration", "yaw_rate", "speed", "steer_angle", "control", "walker_control", "lamps", "lane_offset",
    "lane_s", "traffic", "physics", "motion",
)  # fmt: skip


class TownFullError(RuntimeError):
    """No free actor row is left."""


class Town:
    """A road network with everything that moves on it."""

    def __init__(
        self, network: RoadNetwork, *, seed: int = 0, capacity: int = 512, solids: NDArray[np.float64] | None = None
    ) -> None:
        """Make an empty town.

        Args:
            network: the roads.
            seed: of everything random in the town.
            capacity: number of actor rows.
            solids: static boxes (n, 6): x, y, yaw, half length, half width, height; None for none.
        """
        self.network = network
        self.lane_map = LaneMap(network)
        self._phases = signals.phase_counts(network)
        self._state = TownState.empty(capacity, len(network.light_group), len(self._phases))
        self._roads = roads_of(network)
        self._actors = actors_of(self._state)
        self._solids = solids_of(solids)
        self._contact_rows = np.zeros((MAX_CONTACTS, 2), np.int32)
        self._contact_values = np.zeros((MAX_CONTACTS, 6))
        self.collisions: NDArray[Any] = np.zeros(0, CONTACT)
        self.reset(seed)

    def set_solids(self, boxes: NDArray[np.float64] | None) -> None:
        """Take other static boxes, (n, 6) as for `__init__`."""
        self._solids = solids_of(boxes)

    @property
    def state(self) -> TownState:
        """The live state; writing into its arrays changes the town."""
        return self._state

    @property
    def solids(self) -> NDArray[np.float64]:
        """Static boxes (n, 6): x, y, yaw, half length, half width, height."""
        return self._solids.box

    @cached_property
    def walk_table(self) -> people.WalkTable:
        """Where people walk and cross; made on first use."""
        return people.walk_table(self.network)

    def reset(self, seed: int) -> None:
        """Remove all actors and start again: lights, clock, weather and dice."""
        blank = TownState.empty(len(self._state.kind), len(self._state.light_state), len(self._phases))
        self.restore(blank)
        self._state.rng[0] = np.uint64(seed % 2**64)
        self._state.weather[:] = preset("ClearNoon")
        signals.start_signals(self.network, self._state)

    # ------------------------------------------------------------------ actors
    def spawn(
        self, model: int | str, x: float, y: float, z: float, yaw: float, *, policy: int = POLICY_EXTERNAL,
        pitch: float = 0.0, roll: float = 0.0, tint: tuple[int, int, int] | None = None, check_collision: bool = True,
        actor_id: int | None = None,
    ) -> int:  # fmt: skip
        """Put an actor into the town and return its row, or -1 if it would stand in another or in scenery.

        Args:
            model: blueprint id or row of the catalogue.
            x, y, z, yaw, pitch, roll: pose (m, rad); z is the ground under it.
            policy: who moves it (POLICY_*).
            tint: body colour; by the dice from the model's colours when None.
            check_collision: refuse an occupied place.
            actor_id: id to give it; a fresh one when None.

        Raises:
            TownFullError: all rows are taken.
            KeyError: unknown blueprint id.
        """
        number = model_row(model) if isinstance(model, str) else int(model)
        free = np.flatnonzero(self._state.kind == KIND_FREE)
        if len(free) == 0:
            raise TownFullError(
                f"all {len(self._state.kind)} actor rows are taken; make the Town with a larger capacity"
            )
        row = int(free[0])
        self._fill_row(row, number, (x, y, z), (roll, pitch, yaw), policy)
        if check_collision and self._stands_in_something(row):
            self._state.kind[row] = KIND_FREE
            return -1
        s = self._state
        s.actor_id[row] = int(s.actor_id.max()) + 1 if actor_id is None else actor_id
        s.actor_rng[row] = np.uint64(int(draw(s.rng, 0) * 2**53))
        colors = MODELS[number].colors
        s.tint[row] = tint if tint is not None else colors[int(draw(s.actor_rng, row) * len(colors))]
        self.set_policy(row, policy)
        return row

    def _fill_row(
        self, row: int, number: int, xyz: tuple[float, float, float], rotation: tuple[float, float, float], policy: int
    ) -> None:
        s, model = self._state, MODELS[number]
        kind = {"pedestrian": KIND_WALKER, "prop": KIND_PROP}.get(model.base_type, KIND_VEHICLE)
        for name in _MOTION_FIELDS:
            getattr(s, name)[row] = 0
        s.lane[row] = s.path[row] = -1
        s.kind[row], s.model[row], s.policy[row] = kind, number, policy
        s.xyz[row], s.rotation[row] = xyz, rotation
        s.half_size[row] = (0.5 * model.length_m, 0.5 * model.width_m, 0.5 * model.height_m)
        s.wheelbase[row] = model.wheelbase_m

    def _stands_in_something(self, row: int) -> bool:
        s = self._state
        reach_m = np.hypot(s.half_size[:, 0], s.half_size[:, 1]) + np.hypot(*s.half_size[row, :2])
        away_m = np.hypot(s.xyz[:, 0] - s.xyz[row, 0], s.xyz[:, 1] - s.xyz[row, 1])
        for other in np.flatnonzero((s.kind != KIND_FREE) & (away_m <= reach_m)):
            if other != row and overlap_of_rows(self._actors, row, int(other))[0] > 0.0:
                return True
        box = self._solids.box
        near = np.flatnonzero(np.hypot(box[:, 0] - s.xyz[row, 0], box[:, 1] - s.xyz[row, 1]) < 60.0)
        pose = (s.xyz[row, 0], s.xyz[row, 1], s.rotation[row, 2], s.half_size[row, 0], s.half_size[row, 1])
        return any(box_overlap(*pose, *box[k, :5])[0] > 0.0 for k in near)

    def destroy(self, row: int) -> None:
        """Remove an actor; its row may be reused, its id is not."""
        self._state.kind[row] = KIND_FREE
        self._state.lane[row] = -1
        self._state.speed[row] = 0.0

    def row_of(self, actor_id: int) -> int:
        """Row of a living actor.

        Raises:
            KeyError: no such actor.
        """
        found = np.flatnonzero((self._state.actor_id == actor_id) & (self._state.kind != KIND_FREE))
        if len(found) == 0:
            raise KeyError(f"no actor with id {actor_id} in this town")
        return int(found[0])

    def set_policy(self, row: int, policy: int) -> None:
        """Hand an actor to another mover.

        Raises:
            ValueError: a traffic vehicle too far from every lane, or a walker where nobody can walk.
        """
        s = self._state
        s.policy[row] = policy
        if policy == POLICY_TRAFFIC:
            if not traffic.adopt(self._roads, self._actors, row):
                raise ValueError(f"no driving lane within 4 m of {tuple(s.xyz[row].round(1))} for a traffic vehicle")
        elif policy == POLICY_WALKER:
            if len(self.walk_table.line_lane) == 0:
                raise ValueError(f"nobody can walk in {self.network.name}: it has neither sidewalks nor road edges")
            pose, gap = s.xyz[row].copy(), self.walk_table.line_xyz_m - s.xyz[row]
            point = int(np.argmin((gap**2).sum(1)))
            people.start_walker(self._roads, self.walk_table, self._actors, row, point, 1.0)
            s.xyz[row] = pose

    def set_control(
        self, row: int, throttle: float, steer: float, brake: float, hand_brake: bool = False, reverse: bool = False,
        manual_gear_shift: bool = False, gear: int = 1,
    ) -> None:  # fmt: skip
        """What CARLA's VehicleControl says; steer > 0 is right. Held until the next call."""
        self._state.control[row] = (throttle, steer, brake, hand_brake, reverse, manual_gear_shift, gear)

    def set_walker_control(
        self, row: int, direction: tuple[float, float, float], speed_mps: float, jump: bool = False
    ) -> None:
        """What CARLA's WalkerControl says. Held until the next call."""
        self._state.walker_control[row] = (*direction, speed_mps, jump)

    def teleport(
        self, row: int, x: float, y: float, z: float, yaw: float, *, pitch: float = 0.0, roll: float = 0.0,
        speed_mps: float | None = None,
    ) -> None:  # fmt: skip
        """Set a pose at once; with speed_mps also the velocity along the new heading, else it is kept."""
        s = self._state
        s.xyz[row], s.rotation[row] = (x, y, z), (roll, pitch, yaw)
        if speed_mps is not None:
            s.motion[row, SLIDING] = 0.0
            s.speed[row] = speed_mps
            s.velocity[row] = (speed_mps * math.cos(yaw), speed_mps * math.sin(yaw), 0.0)
        if s.policy[row] == POLICY_TRAFFIC:
            self.set_policy(row, POLICY_TRAFFIC)

    # ------------------------------------------------------------------ time
    def step(self, dt_s: float) -> None:
        """Advance everything by dt_s; afterwards `collisions` holds this tick's contacts (dtype CONTACT)."""
        parts = max(math.ceil(dt_s / MAX_STEP_S - 1e-9), 1)
        found = [self._part(dt_s / parts) for _ in range(parts)]
        self.collisions = found[0] if parts == 1 else np.concatenate(found)
        self._state.tick[0] += 1
        self._state.time_s[0] += dt_s

    def _part(self, dt_s: float) -> NDArray[Any]:
        s, net = self._state, self.network
        if len(s.light_state):
            lights = (s.light_state, s.light_elapsed_s, s.light_durations_s, s.light_frozen)
            groups = (s.group_phase, s.group_elapsed_s)
            signals.step_signals(net.light_group, net.light_phase, self._phases, *lights, *groups, dt_s)
        live = s.kind != KIND_FREE
        if np.any(live & (s.policy == POLICY_TRAFFIC)):
            traffic.step_traffic(self._roads, self._actors, dt_s)
        if np.any(live & (s.policy == POLICY_WALKER)):
            people.step_walkers(self._roads, self.walk_table, self._actors, dt_s)
        step_external(self._roads, self._actors, MODEL_PHYSICS, dt_s)
        count = resolve_contacts(self._actors, self._solids, MODEL_PHYSICS, self._contact_rows, self._contact_values)
        contacts = np.zeros(count, CONTACT)
        contacts["row_a"], contacts["row_b"] = self._contact_rows[:count].T
        contacts["impulse"], contacts["normal"] = self._contact_values[:count, :3], self._contact_values[:count, 3:]
        return contacts

    def copy_state(self) -> TownState:
        """An independent copy: with `restore` an exact branch."""
        return self._state.copy()

    def restore(self, state: TownState) -> None:
        """Take over a copied state of this town (or of another Town on the same network and capacity).

        Raises:
            ValueError: it is of another network, capacity or version; nothing was taken over.
        """
        for field in fields(TownState):
            here, there = getattr(self._state, field.name).shape, getattr(state, field.name).shape
            if here != there:
                raise ValueError(f"a state of another town or version: its {field.name} is {there}, here {here}")
        for field in fields(TownState):
            np.copyto(getattr(self._state, field.name), getattr(state, field.name))
        self.collisions = np.zeros(0, CONTACT)

    # ------------------------------------------------------------------ own traffic
    def populate(
        self, vehicles: int, walkers: int, *, near: tuple[float, float] | None = None, radius_m: float = 200.0,
        rng: np.random.Generator, jaywalks: float = 1.0, two_wheelers: float = 0.1,
    ) -> list[int]:  # fmt: skip
        """Add own traffic and people, at random places (within radius_m of `near`); returns their rows.

        Fewer come where there is no room. `jaywalks` scales how often people step out off crosswalks.
        """
        rows = self._add_vehicles(vehicles, near, radius_m, rng, two_wheelers)
        return rows + self._add_walkers(walkers, near, radius_m, rng, jaywalks)

    def _add_vehicles(
        self,
        wanted: int,
        near: tuple[float, float] | None,
        radius_m: float,
        rng: np.random.Generator,
        two_wheelers: float,
    ) -> list[int]:
        s, net = self._state, self.network
        rows: list[int] = []
        bikes = [m for m in TRAFFIC_MODELS if MODELS[m].shape == SHAPE_TWO_WHEELER]
        cars = [m for m in TRAFFIC_MODELS if MODELS[m].shape != SHAPE_TWO_WHEELER]
        for spot in _shuffled_near(net.spawn_xyz_m, near, radius_m, rng):
            if len(rows) == wanted:
                break
            xyz = net.spawn_xyz_m[spot].astype(np.float64)
            live = s.kind != KIND_FREE
            if np.any(live & (np.hypot(s.xyz[:, 0] - xyz[0], s.xyz[:, 1] - xyz[1]) < 9.0)):
                continue
            model = rng.choice(bikes if rng.random() < two_wheelers else cars)
            x, y, z = (float(v) for v in xyz)
            row = self.spawn(int(model), x, y, z, float(net.spawn_yaw_rad[spot]), policy=POLICY_TRAFFIC)
            if row >= 0:
                rows.append(row)
        return rows

    def _add_walkers(
        self, wanted: int, near: tuple[float, float] | None, radius_m: float, rng: np.random.Generator, jaywalks: float
    ) -> list[int]:
        rows: list[int] = []
        if wanted == 0 or len(self.walk_table.line_lane) == 0:
            return rows
        for point in _shuffled_near(self.walk_table.line_xyz_m, near, radius_m, rng):
            if len(rows) == wanted:
                break
            x, y, z = self.walk_table.line_xyz_m[point]
            row = self.spawn(int(rng.choice(WALKER_MODELS)), x, y, z, 0.0, policy=POLICY_KINEMATIC)
            if row >= 0:
                self._state.policy[row] = POLICY_WALKER
                people.start_walker(self._roads, self.walk_table, self._actors, row, int(point), jaywalks)
                rows.append(row)
        return rows

    # ------------------------------------------------------------------ scripted manoeuvres
    def hard_brake(self, row: int, decel_mps2: float, duration_s: float) -> None:
        """Make a traffic vehicle brake now."""
        driver = self._driver(row)
        driver[drivers.BRAKE_DECEL], driver[drivers.BRAKE_LEFT] = decel_mps2, duration_s

    def change_lane(self, row: int, direction: int, duration_s: float) -> bool:
        """Make a traffic vehicle move one lane right (+1) or left (-1), gap or no gap; False if there is none."""
        self._driver(row)
        return bool(lane_changes.begin_change(self._roads, self._actors, row, direction, duration_s))

    def set_speed(self, row: int, target_mps: float | None) -> None:
        """Order a traffic vehicle's free speed (it still follows and stops); None gives it back its own will."""
        self._driver(row)[drivers.SET_SPEED] = -1.0 if target_mps is None else target_mps

    def set_ignores(self, row: int, *, lights: bool = False, actors: bool = False, junctions: bool = False) -> None:
        """Make a traffic vehicle reckless: it runs lights, does not follow anybody, or takes its way at junctions."""
        flags = lights * drivers.IGNORE_LIGHTS + actors * drivers.IGNORE_ACTORS + junctions * drivers.IGNORE_JUNCTIONS
        self._driver(row)[drivers.IGNORES] = flags

    def set_path(self, row: int, lanes: list[int]) -> None:
        """Order the lanes after the current one; later ones are by the dice."""
        self._driver(row)
        ahead = lanes[: self._state.path.shape[1] - 1]
        self._state.path[row, 1:] = -1
        self._state.path[row, 1 : 1 + len(ahead)] = ahead
        paths.fill_path(self._roads, self._state.path, self._state.actor_rng, row)

    def cross_road(self, row: int, target_xy: tuple[float, float], speed_mps: float) -> None:
        """Make one of the town's walkers go straight to a place, whatever comes, and stand there."""
        if self._state.policy[row] != POLICY_WALKER:
            raise ValueError(f"row {row} is no walker of the town (spawn it with policy=POLICY_WALKER)")
        walker = self._state.traffic[row]
        walker[people.WALK_MODE], walker[people.GOAL_LANE] = people.MODE_CROSS, -1.0
        walker[people.GOAL_X], walker[people.GOAL_Y], walker[people.GOAL_Z] = *target_xy, self._state.xyz[row, 2]
        walker[people.WALK_SPEED], walker[people.HURRY] = speed_mps, 1.0

    def stand(self, row: int) -> None:
        """Make one of the town's walkers wait where it is until `cross_road`."""
        self._state.traffic[row, people.WALK_MODE] = people.MODE_STAND

    def _driver(self, row: int) -> NDArray[np.float64]:
        if self._state.policy[row] != POLICY_TRAFFIC or self._state.kind[row] != KIND_VEHICLE:
            raise ValueError(f"row {row} is no traffic vehicle (spawn it with policy=POLICY_TRAFFIC)")
        driver: NDArray[np.float64] = self._state.traffic[row]
        return driver

    # ------------------------------------------------------------------ lights
    def vehicle_light_affecting(self, row: int) -> tuple[int, bool]:
        """The light at the end of a vehicle's lane (-1: none), and whether the vehicle is at its stop line."""
        s, net = self._state, self.network
        lane = int(s.lane[row])
        if lane < 0:
            return -1, False
        if net.lane_light[lane] >= 0:
            left_m = float(net.lane_length_m[lane]) - s.lane_s[row] - s.half_size[row, 0]
            return int(net.lane_light[lane]), bool(left_m < STOP_BOX_BEFORE_M)
        before = int(net.lane_previous[lane, 0])
        if before >= 0 and net.lane_light[before] >= 0 and s.lane_s[row] - s.half_size[row, 0] < STOP_BOX_AFTER_M:
            return int(net.lane_light[before]), True
        return -1, False

    def set_light(self, light: int, value: int) -> None:
        """Set one light (LIGHT_*); it holds until its group's next change, or for ever while frozen."""
        signals.set_light(self._state, light, min(max(value, 0), LIGHT_OFF))

    def freeze_lights(self, frozen: bool) -> None:
        """Stop or restart all lights of the town."""
        self._state.light_frozen[:] = frozen

    def set_light_times(
        self, light: int, *, green_s: float | None = None, yellow_s: float | None = None, red_s: float | None = None
    ) -> None:
        """Set how long one light's stages last; None leaves one as it is."""
        for column, value in enumerate((green_s, yellow_s, red_s)):
            if value is not None:
                self._state.light_durations_s[light, column] = value

    def lights_of_group(self, light: int) -> list[int]:
        """All lights that cycle with this one, itself included."""
        return [int(k) for k in signals.lights_of_group(self.network, light)]

    def reset_light_group(self, light: int) -> None:
        """Restart the cycle of a light's group."""
        signals.reset_group(self.network, self._state, int(self.network.light_group[light]))


def _shuffled_near(
    xyz_m: NDArray[Any], near: tuple[float, float] | None, radius_m: float, rng: np.random.Generator
) -> NDArray[np.intp]:
    rows = np.arange(len(xyz_m))
    if near is not None:
        rows = rows[np.hypot(xyz_m[:, 0] - near[0], xyz_m[:, 1] - near[1]) <= radius_m]
    return rng.permutation(rows)


__all__ = [
    "KIND_FREE",
    "KIND_PROP",
    "KIND_VEHICLE",
    "KIND_WALKER",
    "POLICY_EXTERNAL",
    "POLICY_KINEMATIC",
    "POLICY_PARKED",
    "POLICY_TRAFFIC",
    "POLICY_WALKER",
    "Town",
    "TownFullError",
]  # fmt: skip
