"""The commands of `apply_batch`: `[[index, fields]]` in, `[[1, actor id]]` or `[[0, [text]]]` out."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from drivesim.carla_server.episode import Episode
from drivesim.carla_server.rpc import Refusal
from drivesim.carla_server.structs import (
    ActorDescription,
    flag,
    identifier,
    location,
    number,
    numbers,
    transform,
    vector,
    vehicle_control,
    walker_control,
)  # fmt: skip
from drivesim.town import pushes

if TYPE_CHECKING:
    from drivesim.carla_server.server import CarlaServer

BATCH_LIMIT = 100_000
SPAWN, VEHICLE_CONTROL = 0, 2
Command = Callable[..., None]


class Batch:
    """Runs commands against the server's present episode; the single calls of the same name share its methods."""

    def __init__(self, server: CarlaServer) -> None:
        self._server = server
        self._commands: dict[int, tuple[Command, str]] = {
            1: (self.destroy, "destroy actor"), 3: (self.ackermann, "apply Ackermann control"),
            4: (self.walker_control, "apply walker control"), 5: (self.physics_control, "apply physics control"),
            6: (self.transform, "set transform"), 7: (self.walker_state, "apply walker state"),
            8: (self.velocity, "set target velocity"), 9: (self.angular_velocity, "set target angular velocity"),
            10: (self.impulse, "add impulse"), 11: (self.force, "add force"),
            12: (self.angular_impulse, "add angular impulse"), 13: (self.torque, "add torque"),
            14: (self.simulate_physics, "set simulate physics"), 15: (self.gravity, "set enable gravity"),
            16: (self.autopilot, "set autopilot"), 17: (self.telemetry, "show debug telemetry"),
            18: (self.light_state, "set vehicle light state"), 19: (self.location, "set location"),
            20: (self.console, "run console command"), 21: (self.traffic_light, "set traffic light state"),
        }  # fmt: skip

    @property
    def _episode(self) -> Episode:
        return self._server.simulation.episode

    def run(self, commands: Any) -> list[Any]:
        """Run all; the results in the same order."""
        if not isinstance(commands, list) or len(commands) > BATCH_LIMIT:
            raise TypeError(f"expected a list of at most {BATCH_LIMIT} commands")
        return [self._run_one(command, 0) for command in commands]

    def _run_one(self, command: Any, own_id: int) -> list[Any]:
        try:
            index, fields = command[0]
            if index == VEHICLE_CONTROL:
                self.control(fields[0] or own_id, fields[1])
                return [[1, fields[0] or own_id]]
            if index == SPAWN:
                return [[1, self._spawn(fields)]]
            actor_id = identifier(fields[0]) if index != 20 else 0
            actor_id = actor_id or own_id  # 0 is the actor that is just being spawned
            self._commands[index][0](actor_id, *fields[1:])
            return [[1, actor_id]]
        except Refusal as refusal:
            return [[0, [str(refusal)]]]
        except (TypeError, ValueError, IndexError, KeyError, OverflowError) as error:
            return [[0, [f"apply_batch: malformed command ({error})"]]]

    def _spawn(self, fields: list[Any]) -> int:
        description, pose, parent = ActorDescription.from_wire(fields[0]), transform(fields[1]), fields[2]
        parent_id = identifier(parent[1]) if parent[0] else 0
        actor_id = self._episode.spawn(description, *pose, parent_id).actor_id
        for command in fields[5] if len(fields) > 5 else []:
            self._run_one(command, actor_id)
        return actor_id

    # ---- the commands; each takes an actor id and the command's other fields

    def destroy(self, actor_id: int) -> None:
        """Remove an actor and hang up on its listeners."""
        actor = self._episode.destroy(actor_id)
        if actor.stream_id:
            self._server.hub.close_stream(actor.stream_id)

    def control(self, actor_id: int, control: Any) -> None:
        """VehicleControl; ends an Ackermann control."""
        row = self._episode.row(actor_id, "apply control")
        self._episode.town.state.control[row] = vehicle_control(control)
        if row in self._episode.not_sticky:
            self._episode.fresh_controls.add(row)
        pushes.stop_tracking(self._episode.town.state, row)

    def ackermann(self, actor_id: int, control: Any) -> None:
        """VehicleAckermannControl; held until a VehicleControl."""
        row = self._episode.row(actor_id, "apply Ackermann control")
        pushes.track(self._episode.town.state, row, numbers(control, (0.0,) * 5))

    def walker_control(self, actor_id: int, control: Any) -> None:
        """WalkerControl."""
        row = self._episode.row(actor_id, "apply walker control")
        self._episode.town.state.walker_control[row] = walker_control(control)

    def physics_control(self, actor_id: int, control: Any) -> None:
        """VehiclePhysicsControl."""
        self._server.physics_controls.set(self._episode, actor_id, control)

    def transform(self, actor_id: int, pose: Any) -> None:
        """Teleport."""
        self._episode.move(self._episode.find(actor_id, "set transform"), *transform(pose))

    def location(self, actor_id: int, place: Any) -> None:
        """Teleport, keeping the rotation."""
        self._episode.move(self._episode.find(actor_id, "set location"), location(place), None)

    def walker_state(self, actor_id: int, pose: Any, speed: Any) -> None:
        """Pose and speed of an AI walker."""
        row = self._episode.row(actor_id, "apply walker state")
        self._episode.walk_to(row, *transform(pose), number(speed))

    def velocity(self, actor_id: int, value: Any) -> None:
        """Set the velocity, world frame, m/s."""
        self._episode.push(self._episode.row(actor_id, "set target velocity"), np.array(vector(value)))

    def angular_velocity(self, actor_id: int, value: Any) -> None:
        """Set the turn rate, deg/s, for the coming step."""
        row = self._episode.row(actor_id, "set target angular velocity")
        pushes.turn_for_a_step(self._episode.town.state, row, float(np.radians(vector(value)[2])))

    def impulse(self, actor_id: int, value: Any, place: Any = None) -> None:
        """Add an impulse, N s in the world, at the middle of the body or at a place."""
        row = self._episode.row(actor_id, "add impulse")
        at = None if place is None else location(place)
        pushes.add_impulse(self._episode.town.state, row, vector(value), at)

    def force(self, actor_id: int, value: Any, place: Any = None) -> None:
        """Add a force, N, over the coming step."""
        delta_s = self._server.simulation.delta_s
        self.impulse(actor_id, [component * delta_s for component in vector(value)], place)

    def angular_impulse(self, actor_id: int, value: Any) -> None:
        """Add an angular impulse, N m s; only a turn about the upright axis shows."""
        row = self._episode.row(actor_id, "add angular impulse")
        pushes.add_angular_impulse(self._episode.town.state, row, vector(value)[2])

    def torque(self, actor_id: int, value: Any) -> None:
        """Add a torque, N m, over the coming step."""
        delta_s = self._server.simulation.delta_s
        self.angular_impulse(actor_id, [component * delta_s for component in vector(value)])

    def simulate_physics(self, actor_id: int, enabled: Any) -> None:
        """Physics on or off; off, the actor only moves by being moved."""
        actor = self._episode.find(actor_id, "set simulate physics")
        if actor.row >= 0:
            self._episode.set_simulated(actor.row, flag(enabled))

    def gravity(self, actor_id: int, enabled: Any) -> None:
        """Gravity on or off; a vehicle without has no tyres on the road."""
        actor, on = self._episode.find(actor_id, "set enable gravity"), flag(enabled)
        if actor.row >= 0:
            pushes.set_gravity(self._episode.town.state, actor.row, on)

    def autopilot(self, actor_id: int, enabled: Any) -> None:
        """Accepted: the client itself registers the vehicle with its Traffic Manager."""
        self._episode.find(actor_id, "set autopilot")
        flag(enabled)

    def telemetry(self, actor_id: int, *_: Any) -> None:
        """Accepted: there is no screen to show it on."""
        self._episode.find(actor_id, "show debug telemetry")

    def light_state(self, actor_id: int, flags: Any) -> None:
        """VehicleLightState flags."""
        row = self._episode.row(actor_id, "set vehicle light state")
        self._episode.town.state.lamps[row] = identifier(flags)

    def console(self, *_: Any) -> None:
        """There is no engine console."""
        raise Refusal("ConsoleCommand is not served: there is no engine console")

    def traffic_light(self, actor_id: int, state: Any) -> None:
        """Set a traffic light."""
        light = self.light(actor_id, "set traffic light state")
        self._episode.town.set_light(light, identifier(state, 8))

    def light(self, actor_id: object, doing: str) -> int:
        """The network's light of an actor id.

        Raises:
            Refusal: it is no traffic light.
        """
        actor = self._episode.find(actor_id, doing)
        if actor.light < 0:
            raise Refusal(f"unable to {doing}: {actor.type_id} is not a traffic light")
        return actor.light
