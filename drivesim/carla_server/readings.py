"""What the small sensors say: motion, position, collisions, obstacles."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from drivesim.carla_server.actors import ServerActor
from drivesim.carla_server.episode import Episode
from drivesim.carla_server.geography import GeoReference
from drivesim.carla_server.obstacles import nearest_ahead
from drivesim.carla_server.poses import Floats
from drivesim.carla_server.rpc import encode, pack
from drivesim.carla_server.streaming import StreamHub

GRAVITY_MPS2 = 9.81
SCENERY = ServerActor(0, "static.other", tags=b"\x16")
AXES = ("x", "y", "z")


@dataclass
class Noise:
    """A sensor's own bias and gaussian noise (attributes `noise_*`), by its seed."""

    values: dict[str, float]
    rng: np.random.Generator = field(init=False)

    @staticmethod
    def of(actor: ServerActor) -> Noise:
        """Read the attributes of an actor."""
        return Noise({name: actor.number(name, 0.0) for name, _, _ in actor.attributes if name.startswith("noise_")})

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(int(abs(self.values.get("noise_seed", 0.0))))

    def blur(self, values: list[float], spread: str, bias: str, axes: tuple[str, ...]) -> list[float]:
        """Add to each axis what the attributes called `spread` and `bias` (with {} for the axis) say."""
        result = []
        for value, axis in zip(values, axes, strict=True):
            deviation = self.values.get(spread.format(axis), 0.0)
            noise = float(self.rng.normal(0.0, deviation)) if deviation > 0.0 else 0.0
            result.append(value + self.values.get(bias.format(axis), 0.0) + noise)
        return result


class Readings:
    """The small sensors of an episode; each method gives the bodies to send, of which there may be none."""

    def __init__(self, episode: Episode, hub: StreamHub) -> None:
        self._episode = episode
        self._hub = hub
        self._geography = GeoReference.of(episode.opendrive)
        self._turning: dict[int, tuple[float, float]] = {}  # IMU -> time, yaw rate of its last reading

    def parent_row(self, actor: ServerActor) -> int:
        """The town's row that a sensor rides on, or -1."""
        parent = self._episode.actors.get(actor.parent_id) if actor.relative is not None else None
        return parent.row if parent is not None else -1

    def velocity(self, actor: ServerActor, matrix: Floats) -> Floats:
        """(3,) m/s in the world, of a sensor at `matrix`."""
        row, state = self.parent_row(actor), self._episode.town.state
        if row < 0:
            return np.zeros(3)
        arm, rate = matrix[:3, 3] - state.xyz[row], float(state.yaw_rate[row])
        return np.asarray(state.velocity[row] + np.array([-rate * arm[1], rate * arm[0], 0.0]))

    def of(self, actor: ServerActor, matrix: Floats, noise: Noise) -> list[bytes]:
        """The bodies that a sensor sends now."""
        kind = actor.type_id
        if kind == "sensor.other.imu":
            return [self._imu(actor, matrix, noise)]
        if kind == "sensor.other.gnss":
            place = list(self._geography.locate(*matrix[:3, 3].tolist()))
            return [bytes(pack(noise.blur(place, "noise_{}_stddev", "noise_{}_bias", ("lat", "lon", "alt"))))]
        if kind == "sensor.other.collision":
            return self._collisions(actor)
        return self._obstacles(actor, matrix) if kind == "sensor.other.obstacle" else []

    def _imu(self, actor: ServerActor, matrix: Floats, noise: Noise) -> bytes:
        state, row = self._episode.town.state, self.parent_row(actor)
        local = matrix[:3, :3].T
        acceleration, rate = np.zeros(3), 0.0
        if row >= 0:
            rate = float(state.yaw_rate[row])
            acceleration = state.acceleration[row] + self._swing(actor, matrix[:3, 3] - state.xyz[row], rate)
        felt = local @ (acceleration + np.array([0.0, 0.0, GRAVITY_MPS2]))
        turn = local @ np.array([0.0, 0.0, rate])
        compass = math.atan2(matrix[0, 0], -matrix[1, 0]) % (2.0 * math.pi)  # 0 is north, which is -y
        shown = [noise.blur(felt.tolist(), "noise_accel_stddev_{}", "noise_accel_bias_{}", AXES),
                 noise.blur(turn.tolist(), "noise_gyro_stddev_{}", "noise_gyro_bias_{}", AXES), compass]  # fmt: skip
        return bytes(pack(shown))

    def _swing(self, actor: ServerActor, arm: Floats, rate: float) -> Floats:
        """What turning adds to the acceleration (3,) at an arm (3,) from the middle of the vehicle."""
        now_s = float(self._episode.town.state.time_s[0])
        before_s, before = self._turning.get(actor.actor_id, (now_s, rate))
        self._turning[actor.actor_id] = now_s, rate
        growth = (rate - before) / (now_s - before_s) if now_s > before_s else 0.0
        outward, along = -rate * rate, growth
        return np.array([outward * arm[0] - along * arm[1], outward * arm[1] + along * arm[0], 0.0])

    def _collisions(self, actor: ServerActor) -> list[bytes]:
        contacts = self._episode.town.collisions
        row = self.parent_row(actor)
        if row < 0 or not len(contacts):
            return []
        bodies = []
        for contact in contacts[(contacts["row_a"] == row) | (contacts["row_b"] == row)]:
            first = int(contact["row_a"]) == row
            other = int(contact["row_b"] if first else contact["row_a"])
            impulse = (contact["impulse"] if first else -contact["impulse"]).tolist()
            bodies.append(self._event(row, other, impulse))
        return bodies

    def _obstacles(self, actor: ServerActor, matrix: Floats) -> list[bytes]:
        row = self.parent_row(actor)
        reach_m, radius_m = actor.number("distance", 5.0), actor.number("hit_radius", 0.5)
        moving_only = actor.value("only_dynamics").lower() == "true"
        hit = nearest_ahead(self._episode.town, matrix, row, reach_m, radius_m, moving_only=moving_only)
        return [self._event(row, *hit)] if hit is not None else []

    def _event(self, row: int, other: int, what: Any) -> bytes:
        table, token = self._episode.actors, self._hub.token
        own, met = table.of_row(row) or SCENERY, table.of_row(other) or SCENERY
        return b"\x93" + encode(own.to_wire(token)) + encode(met.to_wire(token)) + encode(what)
