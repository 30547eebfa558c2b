"""Calls about the parts of actors: components, sockets, bones of walkers and vehicles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from drivesim.carla_server import skeleton, structs
from drivesim.carla_server.actors import ServerActor
from drivesim.carla_server.poses import matrix_from_pose, pose_from_matrix
from drivesim.carla_server.rpc import VALUE, VOID, Call, Refusal
from drivesim.town.catalogue import MODELS

if TYPE_CHECKING:
    from drivesim.carla_server.server import CarlaServer

Floats = NDArray[np.float64]
WHEEL_RADIUS_M, TRACK_SHARE = 0.35, 0.8
ROOT = "root"


class PartCalls:
    """Handlers; each takes the call's arguments."""

    def __init__(self, server: CarlaServer) -> None:
        self._server = server
        self._poses = skeleton.Poses()

    @property
    def _episode(self) -> Any:
        return self._server.simulation.episode

    # ---- parts by name

    def component_names(self, actor_id: Any) -> list[str]:
        """Names of an actor's components."""
        return list(self._components(self._episode.find(actor_id, "get component names")))

    def component_in_world(self, actor_id: Any, name: Any) -> Any:
        """Transform of a component in the world."""
        return _wire(self._component(actor_id, name, in_world=True))

    def component_in_actor(self, actor_id: Any, name: Any) -> Any:
        """Transform of a component in its actor."""
        return _wire(self._component(actor_id, name, in_world=False))

    def bone_names(self, actor_id: Any) -> list[str]:
        """Names of an actor's bones, also of its sockets: each bone can carry something."""
        return list(self._bones(self._episode.find(actor_id, "get bone names")))

    def bones_in_world(self, actor_id: Any, *_: Any) -> list[Any]:
        """Transforms of all bones in the world."""
        actor = self._episode.find(actor_id, "get bone transforms")
        world = self._episode.matrix_of(actor)
        return [_wire(world @ matrix) for matrix in self._bones(actor).values()]

    def bones_in_actor(self, actor_id: Any, *_: Any) -> list[Any]:
        """Transforms of all bones in their actor."""
        return [_wire(matrix) for matrix in self._bones(self._episode.find(actor_id, "get bone transforms")).values()]

    def _component(self, actor_id: Any, name: Any, *, in_world: bool) -> Floats:
        actor = self._episode.find(actor_id, "get component transform")
        components = self._components(actor)
        if name not in components:
            known = ", ".join(components)
            raise Refusal(f"component '{structs.text(name, 256)}' not found in {actor.type_id}; it has {known}")
        matrix = components[name]
        return np.asarray(self._episode.matrix_of(actor) @ matrix if in_world else matrix)

    def _components(self, actor: ServerActor) -> dict[str, Floats]:
        if not actor.type_id.startswith("vehicle."):
            return {ROOT: np.eye(4)}
        length_m, width_m, height_m = (2.0 * half for half in actor.box_extent)
        parts = {ROOT: np.eye(4), "VehicleMesh": np.eye(4)}
        for end, along, kinds in (("front", 0.48, ("position", "low", "high", "blinker")),
                                  ("back", -0.48, ("position", "brake", "reverse", "blinker"))):  # fmt: skip
            for kind in kinds:
                for side, across in (("l", -0.38), ("r", 0.38)):
                    place = np.array([along * length_m, across * width_m, 0.45 * height_m])
                    parts[f"{end}-{kind}-{side}-1"] = matrix_from_pose(place, np.zeros(3))
        return parts

    def _bones(self, actor: ServerActor) -> dict[str, Floats]:
        """Actor from bone by name."""
        if actor.type_id.startswith("walker."):
            lift = matrix_from_pose(np.array([0.0, 0.0, -actor.box_extent[2]]), np.zeros(3))
            matrices = lift @ skeleton.in_component(*self._relative(actor))
            return dict(zip(skeleton.BONE_NAMES, matrices, strict=True))
        if actor.type_id.startswith("vehicle."):
            return self._wheels(actor)
        return {ROOT: np.eye(4)}

    def _wheels(self, actor: ServerActor) -> dict[str, Floats]:
        state = self._episode.town.state
        model = MODELS[int(state.model[actor.row])]
        ahead_m, aside_m = model.wheelbase_m / 2.0, TRACK_SHARE * model.width_m / 2.0
        steer = float(state.steer_angle[actor.row])
        bones = {"Vehicle_Base": np.eye(4)}
        sides = (("_Left", -aside_m), ("_Right", aside_m)) if model.wheels == 4 else (("", 0.0),)
        for end, along_m, yaw in (("Front", ahead_m, steer), ("Rear", -ahead_m, 0.0)):
            for side, across_m in sides:
                place, turn = np.array([along_m, across_m, WHEEL_RADIUS_M]), np.array([0.0, 0.0, yaw])
                bones[f"Wheel_{end}{side}"] = matrix_from_pose(place, turn)
        return bones

    # ---- walkers

    def walker_bones(self, actor_id: Any) -> list[Any]:
        """WalkerBoneControlOut: every bone's transform in the world, in the component and in its parent."""
        actor = self._walker(actor_id, "get bones transform")
        offset, rotation = self._relative(actor)
        component = skeleton.in_component(offset, rotation)
        lift = matrix_from_pose(np.array([0.0, 0.0, -actor.box_extent[2]]), np.zeros(3))
        world = self._episode.matrix_of(actor) @ lift @ component
        rows = zip(skeleton.BONE_NAMES, world, component, offset, rotation, strict=True)
        return [[[name, _wire(at), _wire(part), structs.transform_to_wire(place, turn)]
                 for name, at, part, place, turn in rows]]  # fmt: skip

    def set_walker_bones(self, actor_id: Any, bones: Any) -> None:
        """WalkerBoneControlIn: relative transforms of some bones; `blend_pose` shows them."""
        pose = self._poses.of(self._walker(actor_id, "set bones transform").actor_id)
        for name, transform in bones[0]:
            place, turn = structs.transform(transform)
            pose.set(structs.text(name, 256), np.array(place), np.array(turn))

    def blend_pose(self, actor_id: Any, blend: Any) -> None:
        """How much of the pose that was set is shown: 0 none, 1 all."""
        actor = self._walker(actor_id, "blend pose")
        self._poses.of(actor.actor_id).blend = min(max(structs.number(blend), 0.0), 1.0)

    def pose_from_animation(self, actor_id: Any) -> None:
        """Take the present moment of the walk as the pose."""
        actor = self._walker(actor_id, "get pose from animation")
        pose = self._poses.of(actor.actor_id)
        for name, place, turn in zip(skeleton.BONE_NAMES, *self._walk(actor), strict=True):
            pose.set(name, place, turn)

    def _walker(self, actor_id: Any, doing: str) -> ServerActor:
        actor: ServerActor = self._episode.find(actor_id, doing)
        if not actor.type_id.startswith("walker."):
            raise Refusal(f"unable to {doing}: the actor is not a walker")
        return actor

    def _walk(self, actor: ServerActor) -> tuple[Floats, Floats]:
        state = self._episode.town.state
        speed_mps = float(np.linalg.norm(state.velocity[actor.row, :2]))
        return skeleton.walking(2.0 * actor.box_extent[2], speed_mps, float(state.time_s[0]))

    def _relative(self, actor: ServerActor) -> tuple[Floats, Floats]:
        return self._poses.of(actor.actor_id).mixed(*self._walk(actor))


def _wire(matrix: Floats) -> Any:
    return structs.transform_to_wire(*pose_from_matrix(matrix))


def part_calls(server: CarlaServer) -> dict[str, Call]:
    """The group's table."""
    calls = PartCalls(server)
    unseen = "as clients read it; pictures draw walkers of their own"
    return {
        "get_actor_component_names": Call(VALUE, calls.component_names),
        "get_actor_component_world_transform": Call(VALUE, calls.component_in_world),
        "get_actor_component_relative_transform": Call(VALUE, calls.component_in_actor),
        "get_actor_bone_names": Call(VALUE, calls.bone_names),
        "get_actor_socket_names": Call(VALUE, calls.bone_names, note="every bone is a socket"),
        "get_actor_bone_world_transforms": Call(VALUE, calls.bones_in_world),
        "get_actor_bone_relative_transforms": Call(VALUE, calls.bones_in_actor),
        "get_actor_socket_world_transforms": Call(VALUE, calls.bones_in_world, note="every bone is a socket"),
        "get_actor_socket_relative_transforms": Call(VALUE, calls.bones_in_actor, note="every bone is a socket"),
        "get_vehicle_bone_world_transforms": Call(VALUE, calls.bones_in_world),
        "get_bones_transform": Call(VALUE, calls.walker_bones),
        "set_bones_transform": Call(VOID, calls.set_walker_bones, note=unseen),
        "blend_pose": Call(VOID, calls.blend_pose, note=unseen),
        "get_pose_from_animation": Call(VOID, calls.pose_from_animation, note=unseen),
    }
