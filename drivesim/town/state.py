"""The whole state of a town at one tick, as a structure of arrays.

A copy of the state is an exact counterfactual branch: the random state is in it. Nothing that
influences the future lives anywhere else. Frame: CARLA's (left-handed, yaw clockwise from above,
radians, metres). An actor's x, y is the centre of its box; z is the height of the ground under it.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field, fields

import numpy as np
from numpy.typing import NDArray

from drivesim.town.chassis import PHYSICS_COLUMNS
from drivesim.town.motion import MOTION_COLUMNS

KIND_FREE, KIND_VEHICLE, KIND_WALKER, KIND_PROP = range(4)
POLICY_EXTERNAL, POLICY_TRAFFIC, POLICY_WALKER, POLICY_KINEMATIC, POLICY_PARKED = range(5)
LIGHT_RED, LIGHT_YELLOW, LIGHT_GREEN, LIGHT_OFF = range(4)  # CARLA's numbers
TRAFFIC_PARAMETERS = 24  # columns of `traffic`, named in drivesim/town/traffic.py
FRICTION_VOLUMES = 16  # most volumes of their own friction


def _nothing() -> NDArray[np.float32]:
    return np.zeros((0, 0), np.float32)


def _nothing64() -> NDArray[np.float64]:
    return np.zeros((0, 0))


def _widened(columns: NDArray[np.float32], rows: int, wanted: int) -> NDArray[np.float32]:
    """Columns (rows, wanted): those that an earlier version did not have yet are zero, which is ordinary."""
    if columns.size == 0:
        return np.zeros((rows, wanted), np.float32)
    missing = wanted - columns.shape[1]
    return columns if missing <= 0 else np.pad(columns, ((0, 0), (0, missing)))


@dataclass
class TownState:
    """N actor rows (free rows have kind KIND_FREE), K lights, G light groups."""

    tick: NDArray[np.int64]  # (1,)
    time_s: NDArray[np.float64]  # (1,)
    rng: NDArray[np.uint64]  # (1,) the town's own generator
    weather: NDArray[np.float64]  # (14,) CARLA's WeatherParameters, in the wire's order
    # actors
    kind: NDArray[np.uint8]
    actor_id: NDArray[np.uint32]
    model: NDArray[np.int16]  # row of drivesim.town.catalogue.MODELS
    policy: NDArray[np.uint8]
    xyz: NDArray[np.float64]  # (N, 3)
    rotation: NDArray[np.float64]  # (N, 3) roll, pitch, yaw
    velocity: NDArray[np.float64]  # (N, 3) world frame
    acceleration: NDArray[np.float64]  # (N, 3) world frame
    yaw_rate: NDArray[np.float64]  # (N,)
    speed: NDArray[np.float64]  # (N,) signed, along the heading
    steer_angle: NDArray[np.float64]  # (N,) rad at the front wheels
    half_size: NDArray[np.float64]  # (N, 3) half length, width, height
    wheelbase: NDArray[np.float64]  # (N,)
    control: NDArray[np.float64]  # (N, 7) throttle, steer, brake, hand_brake, reverse, manual_gear_shift, gear
    walker_control: NDArray[np.float64]  # (N, 5) direction xyz, speed, jump
    lamps: NDArray[np.uint32]  # (N,) CARLA's VehicleLightState flags
    tint: NDArray[np.uint8]  # (N, 3)
    lane: NDArray[np.int32]  # (N,) current driving lane or -1
    lane_s: NDArray[np.float64]  # (N,)
    lane_offset: NDArray[np.float64]  # (N,)
    traffic: NDArray[np.float64]  # (N, TRAFFIC_PARAMETERS)
    path: NDArray[np.int32]  # (N, 8) lanes ahead of a traffic vehicle, -1 padded
    actor_rng: NDArray[np.uint64]  # (N,)
    # lights
    light_state: NDArray[np.uint8]  # (K,)
    light_elapsed_s: NDArray[np.float64]  # (K,)
    light_durations_s: NDArray[np.float64]  # (K, 3) green, yellow, red
    light_frozen: NDArray[np.uint8]  # (K,)
    group_phase: NDArray[np.int32]  # (G,)
    group_elapsed_s: NDArray[np.float64]  # (G,)
    # what logs of earlier versions lack: empty becomes all ordinary
    physics: NDArray[np.float32] = field(default_factory=_nothing)  # (N, P) of drivesim.town.chassis; 0: ordinary
    motion: NDArray[np.float32] = field(default_factory=_nothing)  # (N, M) of drivesim.town.motion
    friction: NDArray[np.float64] = field(default_factory=_nothing64)  # (V, 8) of drivesim.town.friction

    def __post_init__(self) -> None:
        n = len(self.kind)
        self.physics = _widened(self.physics, n, PHYSICS_COLUMNS)
        self.motion = _widened(self.motion, n, MOTION_COLUMNS)
        if self.friction.size == 0:
            self.friction = np.zeros((FRICTION_VOLUMES, 8))

    @staticmethod
    def empty(actors: int, lights: int, groups: int) -> TownState:
        """A town with no actors, all lights red."""
        f, n, k = np.float64, actors, lights
        return TownState(
            tick=np.zeros(1, np.int64), time_s=np.zeros(1, f), rng=np.ones(1, np.uint64), weather=np.zeros(14, f),
            kind=np.zeros(n, np.uint8), actor_id=np.zeros(n, np.uint32), model=np.zeros(n, np.int16),
            policy=np.zeros(n, np.uint8), xyz=np.zeros((n, 3), f), rotation=np.zeros((n, 3), f),
            velocity=np.zeros((n, 3), f), acceleration=np.zeros((n, 3), f), yaw_rate=np.zeros(n, f),
            speed=np.zeros(n, f), steer_angle=np.zeros(n, f), half_size=np.zeros((n, 3), f), wheelbase=np.zeros(n, f),
            control=np.zeros((n, 7), f), walker_control=np.zeros((n, 5), f), lamps=np.zeros(n, np.uint32),
            tint=np.zeros((n, 3), np.uint8), lane=np.full(n, -1, np.int32), lane_s=np.zeros(n, f),
            lane_offset=np.zeros(n, f), traffic=np.zeros((n, TRAFFIC_PARAMETERS), f),
            path=np.full((n, 8), -1, np.int32), actor_rng=np.zeros(n, np.uint64),
            light_state=np.zeros(k, np.uint8), light_elapsed_s=np.zeros(k, f), light_durations_s=np.zeros((k, 3), f),
            light_frozen=np.zeros(k, np.uint8), group_phase=np.zeros(groups, np.int32),
            group_elapsed_s=np.zeros(groups, f),
        )  # fmt: skip

    def copy(self) -> TownState:
        """An independent branch."""
        return TownState(**{f.name: getattr(self, f.name).copy() for f in fields(self)})

    def to_bytes(self) -> bytes:
        """All arrays, in field order, as one .npz-compatible byte string."""
        buffer = io.BytesIO()
        np.savez(buffer, **{f.name: getattr(self, f.name) for f in fields(self)})
        return buffer.getvalue()

    @staticmethod
    def from_bytes(data: bytes) -> TownState:
        """Inverse of `to_bytes`; never unpickles."""
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return TownState(**{f.name: arrays[f.name] for f in fields(TownState) if f.name in arrays})
