"""One episode: a town, the actors that clients know, their poses, and what happens before each step."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drivesim.carla_server import lights
from drivesim.carla_server.actors import ACTOR_LIMIT, SENSOR_STREAM, ActorTable, ServerActor
from drivesim.carla_server.blueprints import BY_UID, FRICTION_TRIGGER, LIBRARY, OUTSIDE, Blueprint
from drivesim.carla_server.obstacles import free_way
from drivesim.carla_server.poses import Floats, matrix_from_pose, pose_from_matrix
from drivesim.carla_server.rpc import Refusal
from drivesim.carla_server.sensor_attributes import SENSOR_INDEX
from drivesim.carla_server.spring_arms import PROBE_M, RIGID, SPRING_ARM, SPRING_ARM_GHOST, SpringArm
from drivesim.carla_server.structs import DEFAULT_WEATHER, ActorDescription, Vector
from drivesim.town import pushes
from drivesim.town.catalogue import MODELS, SHAPE_BUS, SHAPE_TRUCK
from drivesim.town.friction import add_friction_volume, remove_friction_volume
from drivesim.town.motion import SLIDING
from drivesim.town.state import KIND_FREE, KIND_WALKER, POLICY_EXTERNAL, POLICY_KINEMATIC, POLICY_PARKED
from drivesim.town.town import Town

COLLIDES = "Spawn failed because of collision at spawn position"
INVALID = "Spawn failed because of invalid actor description"
NOT_FOUND = "unable to {}: actor not found"
DEFAULT_LIMIT_MPS = 30.0 / 3.6


class Episode:
    """The town of an episode behind CARLA's actor ids."""

    def __init__(self, episode_id: int, map_name: str, opendrive: str, town: Town, first_id: int) -> None:
        self.episode_id = episode_id
        self.map_name = map_name
        self.opendrive = opendrive
        self.town = town
        self.actors = ActorTable(len(town.state.kind), first_id)
        self.stop_boxes = lights.StopBoxes(town.network)
        self.first_light_id = first_id
        self.arms: dict[int, SpringArm] = {}  # by the actor that hangs on it
        lights.add_lights(self.actors, town.network)
        lights.add_signs(self.actors, town.network)
        self.spectator = self.actors.add("spectator", attributes=(("role_name", 4, "spectator"),))
        self.spectator.matrix = self._overview()
        self.given_physics: dict[int, list[Any]] = {}  # actor id -> VehiclePhysicsControl as a client set it
        self.friction_volumes: dict[int, int] = {}  # actor id -> its place among the town's volumes
        self.not_sticky: set[int] = set()  # rows whose control lasts for one step (attribute sticky_control)
        self.fresh_controls: set[int] = set()  # those of them that were given one since the last step
        if not town.state.weather.any():
            town.state.weather[:] = DEFAULT_WEATHER

    # ---- actors

    def find(self, actor_id: object, doing: str) -> ServerActor:
        """The actor of an id.

        Raises:
            Refusal: there is none.
        """
        actor = self.actors.get(actor_id)
        if actor is None:
            raise Refusal(NOT_FOUND.format(doing))
        return actor

    def row(self, actor_id: object, doing: str) -> int:
        """The town's row of a vehicle, walker or prop.

        Raises:
            Refusal: no such actor, or it is none of these.
        """
        actor = self.find(actor_id, doing)
        if actor.row < 0:
            raise Refusal(f"unable to {doing}: {actor.type_id} does not support it")
        return actor.row

    def spawn(
        self, description: ActorDescription, xyz: Vector, rotation: Vector, parent_id: int = 0, *,
        attachment: int = RIGID, checked: bool = True, wanted_id: int = 0,
    ) -> ServerActor:  # fmt: skip
        """Make an actor; the transform is relative to the parent where there is one.

        A replay puts actors anywhere (`checked` false), under the id that they had (`wanted_id`) if it is to be had.

        Raises:
            Refusal: with CARLA's own texts.
        """
        blueprint = BY_UID.get(description.uid)
        if blueprint is None or blueprint.type_id != description.type_id:
            blueprint = LIBRARY.get(description.type_id)
        if blueprint is None:
            raise Refusal(INVALID)
        parent = self.find(parent_id, "spawn actor with parent") if parent_id else None
        relative = matrix_from_pose(np.array(xyz), np.array(rotation))
        if len(self.actors) >= ACTOR_LIMIT:
            raise Refusal(f"Spawn failed: the server holds at most {ACTOR_LIMIT} actors")
        if blueprint.model >= 0:
            world = self.matrix_of(parent) @ relative if parent else relative
            return self._spawn_in_town(blueprint, description, world, parent_id, checked, wanted_id)
        if blueprint.type_id in OUTSIDE:
            raise Refusal(f"Spawn failed: {blueprint.type_id} is not served: {OUTSIDE[blueprint.type_id]}")
        actor = self.actors.add(
            blueprint.type_id, uid=blueprint.uid, attributes=blueprint.values(description.values()),
            parent_id=parent_id, matrix=self.matrix_of(parent) @ relative if parent else relative,
            relative=relative if parent else None,
        )  # fmt: skip
        if parent and attachment in (SPRING_ARM, SPRING_ARM_GHOST):
            self.arms[actor.actor_id] = SpringArm.of(relative, self.matrix_of(parent), attachment)
            self._swing_arms(0.0)
        if SENSOR_INDEX.get(blueprint.type_id, -1) >= 0:
            actor.stream_id = SENSOR_STREAM + actor.actor_id
        if blueprint.type_id == FRICTION_TRIGGER:
            self._add_friction_volume(actor)
        return actor

    def destroy(self, actor_id: object) -> ServerActor:
        """Remove an actor; what was attached to it stays where it is.

        Raises:
            Refusal: there is none, or it belongs to the map.
        """
        actor = self.actors.get(actor_id)
        if actor is None:
            raise Refusal("unable to destroy actor: not found")
        if actor is self.spectator or actor.type_id.startswith("traffic."):
            raise Refusal(f"unable to destroy actor: {actor.type_id} belongs to the map")
        for child in self.actors:
            if child.parent_id == actor.actor_id and child.relative is not None:
                child.matrix, child.relative = self.matrix_of(child), None
        if actor.row >= 0:
            self.given_physics.pop(actor.actor_id, None)
            self.not_sticky.discard(actor.row)
            self.fresh_controls.discard(actor.row)
            self.town.destroy(actor.row)
        if actor.actor_id in self.friction_volumes:
            remove_friction_volume(self.town.state, self.friction_volumes.pop(actor.actor_id))
        self.actors.remove(actor)
        return actor

    # ---- poses

    def matrix_of(self, actor: ServerActor) -> Floats:
        """World from actor, as the wire sees it (4, 4)."""
        if actor.row >= 0:
            state = self.town.state
            return matrix_from_pose(self.wire_xyz(actor.row), state.rotation[actor.row])
        if actor.relative is not None:
            parent = self.actors.get(actor.parent_id)
            if parent is not None:
                return self.matrix_of(parent) @ actor.relative
        return actor.matrix

    def wire_xyz(self, row: int) -> Floats:
        """Where CARLA has the origin of a row's actor: walkers at their middle, all else on the ground."""
        state = self.town.state
        xyz: Floats = state.xyz[row].copy()
        if state.kind[row] == KIND_WALKER:
            xyz[2] += state.half_size[row, 2]
        return xyz

    def move(self, actor: ServerActor, xyz: Vector, rotation: Vector | None, *, on_ground: bool = False) -> None:
        """Teleport an actor.

        Args:
            actor: any actor.
            xyz: metres, on the wire's origin (on the ground if `on_ground`).
            rotation: roll, pitch, yaw in radians; None keeps it.
            on_ground: z is the ground's, also for walkers.
        """
        if actor.row < 0:
            kept = pose_from_matrix(self.matrix_of(actor))[1]
            actor.matrix = matrix_from_pose(np.array(xyz), kept if rotation is None else np.array(rotation))
            if actor.relative is not None:
                parent = self.actors.get(actor.parent_id)
                if parent is not None:
                    actor.relative = np.linalg.inv(self.matrix_of(parent)) @ actor.matrix
            return
        state = self.town.state
        x, y, z = xyz
        if state.kind[actor.row] == KIND_WALKER and not on_ground:
            z -= float(state.half_size[actor.row, 2])
        roll, pitch, yaw = rotation if rotation is not None else tuple(state.rotation[actor.row].tolist())
        self.town.teleport(actor.row, x, y, z, yaw, pitch=pitch, roll=roll)

    def walk_to(self, row: int, xyz: Vector, rotation: Vector, speed_mps: float) -> None:
        """What an AI walker's client says each tick: a pose on the ground, and a speed along its yaw."""
        state = self.town.state
        state.xyz[row] = xyz
        state.rotation[row] = rotation
        state.speed[row] = speed_mps
        state.velocity[row] = (speed_mps * math.cos(rotation[2]), speed_mps * math.sin(rotation[2]), 0.0)

    def push(self, row: int, velocity: NDArray[np.float64]) -> None:
        """Set the velocity of a row, (3,) m/s in the world; the speed along the heading follows."""
        pushes.set_velocity(self.town.state, row, velocity)

    def set_simulated(self, row: int, simulated: bool) -> None:
        """Physics on or off: a vehicle or a prop without stands where it is put, and is pushed by nothing."""
        state = self.town.state
        state.policy[row] = POLICY_EXTERNAL if simulated else POLICY_KINEMATIC
        if not simulated and state.kind[row] != KIND_WALKER:
            state.speed[row] = state.yaw_rate[row] = state.motion[row, SLIDING] = 0.0
            state.velocity[row] = state.acceleration[row] = 0.0

    # ---- stepping

    def step(self, dt_s: float) -> None:
        """Step the town; controls that do not stick end first."""
        for row in self.not_sticky - self.fresh_controls:
            self.town.state.control[row] = 0.0
        self.fresh_controls.clear()
        self.town.step(dt_s)
        self.adopt_rows()
        self._swing_arms(dt_s)

    def _swing_arms(self, dt_s: float) -> None:
        """Move what hangs on spring arms to where the arms are now."""
        for actor_id, arm in list(self.arms.items()):
            actor = self.actors.get(actor_id)
            parent = self.actors.get(actor.parent_id) if actor is not None and actor.relative is not None else None
            if actor is None or parent is None:
                del self.arms[actor_id]
                continue
            matrix = self.matrix_of(parent)
            arm.advance(matrix, dt_s)
            reach = partial(free_way, self.town, parent.row, PROBE_M)
            actor.relative = np.linalg.inv(matrix) @ arm.place(matrix, reach)

    def adopt_rows(self) -> None:
        """Give ids to actors that the town made itself, and forget those it removed."""
        occupied = self.town.state.kind != KIND_FREE
        known = self.actors.row_id != 0
        if np.array_equal(occupied, known):
            return
        for row in np.flatnonzero(known & ~occupied):
            actor = self.actors.of_row(int(row))
            if actor is not None:
                self.actors.remove(actor)
        for row in np.flatnonzero(occupied & ~known):
            blueprint = LIBRARY[MODELS[int(self.town.state.model[row])].blueprint]
            self._add_row(int(row), blueprint, blueprint.values({}), 0)

    def speed_limits_mps(self, rows: NDArray[np.int64]) -> Floats:
        """The limit at each row's place; 30 km/h off the roads."""
        network, state = self.town.network, self.town.state
        lane = state.lane[rows]
        safe = np.maximum(lane, 0)
        count = network.lane_count[safe]
        share = state.lane_s[rows] / np.maximum(network.lane_length_m[safe], 1e-3)
        point = network.lane_start[safe] + np.clip((share * (count - 1)).astype(np.int64), 0, count - 1)
        return np.where(lane >= 0, network.point_speed_limit_mps[point], DEFAULT_LIMIT_MPS)

    # ---- parts

    def _spawn_in_town(
        self, blueprint: Blueprint, description: ActorDescription, world: Floats, parent_id: int, checked: bool,
        wanted_id: int,
    ) -> ServerActor:  # fmt: skip
        values = blueprint.values(description.values())
        model = MODELS[blueprint.model]
        xyz, rotation = pose_from_matrix(world)
        z = float(xyz[2]) - (model.height_m / 2 if model.base_type == "pedestrian" else 0.0)
        policy = POLICY_PARKED if model.base_type == "prop" else POLICY_EXTERNAL
        if not (self.town.state.kind == KIND_FREE).any():
            most = len(self.town.state.kind)
            raise Refusal(f"Spawn failed: the town holds at most {most} vehicles, walkers and props")
        row = self.town.spawn(
            blueprint.model, float(xyz[0]), float(xyz[1]), z, float(rotation[2]), policy=policy,
            pitch=float(rotation[1]), roll=float(rotation[0]), tint=_color(description.values().get("color", "")),
            check_collision=checked,
        )  # fmt: skip
        if row < 0:
            raise Refusal(COLLIDES)
        if description.values().get("sticky_control", "true").lower() in ("false", "0"):
            self.not_sticky.add(row)
        return self._add_row(row, blueprint, values, parent_id, wanted_id)

    def _add_row(
        self, row: int, blueprint: Blueprint, values: tuple[tuple[str, int, str], ...], parent_id: int,
        wanted_id: int = 0,
    ) -> ServerActor:  # fmt: skip
        model = MODELS[blueprint.model]
        half = (model.length_m / 2, model.width_m / 2, model.height_m / 2)
        centre = (0.0, 0.0, 0.0 if model.base_type == "pedestrian" else half[2])
        tags = _semantic_tags(blueprint.model)
        return self.actors.add(blueprint.type_id, uid=blueprint.uid, attributes=values, parent_id=parent_id, row=row,
                               box_centre=centre, box_extent=half, tags=tags, wanted_id=wanted_id)  # fmt: skip

    def _add_friction_volume(self, actor: ServerActor) -> None:
        (x, y, z), (_, _, yaw) = pose_from_matrix(actor.matrix)
        actor.box_extent = tuple(actor.number(f"extent_{axis}", 1.0) / 100.0 for axis in "xyz")  # type: ignore[assignment]
        try:
            place = add_friction_volume(
                self.town.state, (x, y, z), yaw, actor.box_extent, actor.number("friction", 3.5)
            )
        except ValueError as error:
            self.actors.remove(actor)
            raise Refusal(f"Spawn failed: {error}") from None
        self.friction_volumes[actor.actor_id] = place

    def _overview(self) -> Floats:
        points = self.town.network.spawn_xyz_m
        middle = points.mean(axis=0).astype(np.float64) if len(points) else np.zeros(3)
        return matrix_from_pose(middle + np.array([0.0, 0.0, 60.0]), np.array([0.0, -math.pi / 2, 0.0]))


def _color(value: str) -> tuple[int, int, int] | None:
    parts = value.split(",")
    if len(parts) == 3 and all(part.strip().isdigit() and int(part) < 256 for part in parts):
        red, green, blue = (int(part) for part in parts)
        return red, green, blue
    return None


def _semantic_tags(model: int) -> bytes:
    entry = MODELS[model]
    if entry.base_type == "pedestrian":
        return b"\x0c"
    if entry.base_type == "prop":
        return b"\x15"
    if entry.base_type == "motorcycle":
        return b"\x12"
    if entry.base_type == "bicycle":
        return b"\x13"
    return b"\x10" if entry.shape == SHAPE_BUS else b"\x0f" if entry.shape == SHAPE_TRUCK else b"\x0e"
