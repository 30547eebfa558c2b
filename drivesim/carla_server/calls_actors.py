"""Calls about actors of any kind: definitions, spawning, poses, velocities."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from drivesim.carla_server import structs
from drivesim.carla_server.actors import SENSOR_STREAM
from drivesim.carla_server.blueprints import LIBRARY
from drivesim.carla_server.commands import Batch
from drivesim.carla_server.rpc import VALUE, VOID, Call, Packed, Refusal, encode
from drivesim.carla_server.streaming import WORLD_STREAM
from drivesim.carla_server.structs import ActorDescription, identifier, transform
from drivesim.town import pushes

if TYPE_CHECKING:
    from drivesim.carla_server.server import CarlaServer


class ActorCalls:
    """Handlers; each takes the call's arguments (and the calling peer before them where the table says so)."""

    def __init__(self, server: CarlaServer) -> None:
        self._server = server
        self.batch = Batch(server)
        self._definitions = Packed(encode([blueprint.to_wire() for blueprint in LIBRARY.values()]))

    @property
    def _episode(self) -> Any:
        return self._server.simulation.episode

    def _wire(self, actor: Any) -> Packed:
        packed: Packed = actor.to_wire(self._server.hub.token)
        return packed

    def definitions(self) -> Packed:
        """The blueprint library."""
        return self._definitions

    def spectator(self) -> Packed:
        """The spectator."""
        return self._wire(self._episode.spectator)

    def by_id(self, ids: Any) -> Packed:
        """The actors of these ids; unknown ones are left out."""
        found = [actor for actor in map(self._episode.actors.get, ids) if actor is not None]
        return Packed(_array_head(len(found)) + b"".join(self._wire(actor).data for actor in found))

    def spawn(self, description: Any, pose: Any) -> Packed:
        """Make an actor."""
        return self._wire(self._episode.spawn(ActorDescription.from_wire(description), *transform(pose)))

    def spawn_with_parent(self, description: Any, pose: Any, parent: Any, attachment: Any = 0, *_: Any) -> Packed:
        """Make an actor that rides on another, rigidly or on a spring arm; sockets all stand for the root."""
        kind = attachment if type(attachment) is int else 0
        given = ActorDescription.from_wire(description), *transform(pose), identifier(parent)
        return self._wire(self._episode.spawn(*given, attachment=kind))

    def destroy(self, actor_id: Any) -> bool:
        """Remove an actor."""
        self.batch.destroy(actor_id)
        return True

    def set_collisions(self, actor_id: Any, enabled: Any) -> None:
        """Accepted; boxes always collide."""
        self._episode.find(actor_id, "set collisions")
        structs.flag(enabled)

    def constant_velocity(self, actor_id: Any, velocity: Any) -> None:
        """Hold a velocity, in the actor's own frame, until it is disabled."""
        row = self._episode.row(actor_id, "enable constant velocity")
        pushes.hold_velocity(self._episode.town.state, row, structs.vector(velocity))

    def no_constant_velocity(self, actor_id: Any) -> None:
        """End `constant_velocity`."""
        row = self._episode.row(actor_id, "disable constant velocity")
        pushes.hold_velocity(self._episode.town.state, row, None)

    def box(self, actor_id: Any) -> Any:
        """The bounding box."""
        actor = self._episode.find(actor_id, "get actor bounding box")
        return structs.box_to_wire(actor.box_centre, actor.box_extent, actor.actor_id)

    def dead(self, actor_id: Any) -> None:
        """Stop an actor for good."""
        row = self._episode.row(actor_id, "set actor dead")
        self._episode.town.state.control[row] = (0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0)
        self._episode.town.state.walker_control[row] = 0.0

    def sensor_token(self, stream_id: Any) -> Any:
        """The token of a stream that exists."""
        if not self._server.hub.is_stream(identifier(stream_id)):
            raise Refusal(f"get_sensor_token: no stream {stream_id} (sensors begin at {SENSOR_STREAM})")
        if stream_id != WORLD_STREAM:
            self._server.hub.expect(stream_id)
        return [self._server.hub.token(stream_id)]


def _array_head(count: int) -> bytes:
    return bytes([0x90 | count]) if count < 16 else b"\xdd" + count.to_bytes(4, "big")


def actor_calls(server: CarlaServer) -> dict[str, Call]:
    """The group's table."""
    calls = ActorCalls(server)
    batch = calls.batch
    plain = {
        "set_actor_location": batch.location, "set_actor_transform": batch.transform,
        "set_actor_target_velocity": batch.velocity, "set_actor_target_angular_velocity": batch.angular_velocity,
        "add_actor_impulse": batch.impulse, "add_actor_force": batch.force,
        "add_actor_angular_impulse": batch.angular_impulse, "add_actor_torque": batch.torque,
        "set_actor_simulate_physics": batch.simulate_physics,
    }  # fmt: skip
    table = {name: Call(VOID, command) for name, command in plain.items()}
    return table | {
        "get_actor_definitions": Call(VALUE, calls.definitions),
        "get_spectator": Call(VALUE, calls.spectator),
        "get_actors_by_id": Call(VALUE, calls.by_id),
        "spawn_actor": Call(VALUE, calls.spawn),
        "spawn_actor_with_parent": Call(
            VALUE, calls.spawn_with_parent, note="rigid, SpringArm or SpringArmGhost; sockets are ignored"
        ),
        "destroy_actor": Call(VALUE, calls.destroy),
        "set_actor_collisions": Call(VOID, calls.set_collisions, real=False, note="boxes always collide"),
        "set_actor_enable_gravity": Call(VOID, batch.gravity),
        "set_actor_autopilot": Call(VOID, batch.autopilot, real=False, note="the client's TM drives"),
        "set_actor_dead": Call(VOID, calls.dead),
        "enable_actor_constant_velocity": Call(VOID, calls.constant_velocity),
        "disable_actor_constant_velocity": Call(VOID, calls.no_constant_velocity),
        "add_actor_impulse_at_location": Call(VOID, batch.impulse),
        "add_actor_force_at_location": Call(VOID, batch.force),
        "get_actor_bounding_box": Call(VALUE, calls.box),
        "get_sensor_token": Call(VALUE, calls.sensor_token),
    }
