"""A driven scenario: enough to score again without driving again."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from drivesim.datatypes.plan import Plan
from drivesim.datatypes.scenario import Scenario


class EndReason(Enum):
    """Why an episode ended; the first is a success, the rest are terminations or truncations."""

    COMPLETED = "completed"
    TIMEOUT = "timeout"
    BLOCKED = "blocked"
    DEVIATED = "deviated"
    COLLISION = "collision"
    CRASHED = "crashed"  # the driver raised


@dataclass(frozen=True)
class Event:
    """Something that counts: `kind` is a name of the infraction table of METRICS.md."""

    kind: str  # collision_vehicle, collision_walker, collision_static, red_light, stop_sign, blocked, ...
    time_us: int
    x_m: float
    y_m: float
    other_id: int = -1
    value: float = 1.0
    text: str = ""


@dataclass(frozen=True)
class Snapshot:
    """A plan or a picture kept for the report."""

    time_us: int
    plan: Plan | None
    thumbnail_jpeg: bytes = b""  # cameras side by side
    latent: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Episode:
    """One scenario driven once by one planner.

    T ticks at the scenario's dt. Actor tracks are ragged: `actor_tick` holds the tick of each row.

    Attributes:
        times_us: (T,) int64.
        ego: (T, 8) x, y, z, yaw, speed, acceleration, yaw_rate, lateral offset from the route.
        controls: (T, 3) steer (left positive), throttle, brake.
        route_points: (r, 2) whole route every metre, world frame; `route_lane_half_width_m` (r,).
        progress_m: (T,) arc length along the route.
        actor_tick, actor_id, actor_kind: (A,); actor_pose: (A, 3) x, y, yaw; actor_size: (A, 2).
        light_tick (C,), light_state (C, q) at ticks where any changed; stop_pose (q, 4); stop_half_width (q,).
        latencies_ms: name -> (n,) one sample per plan.
    """

    scenario: Scenario
    planner: str
    seed: int
    end: EndReason
    times_us: NDArray[np.int64]
    ego: NDArray[np.float64]
    controls: NDArray[np.float64]
    route_points: NDArray[np.float64]
    route_half_width_m: NDArray[np.float64]
    progress_m: NDArray[np.float64]
    actor_tick: NDArray[np.int32]
    actor_id: NDArray[np.int64]
    actor_kind: NDArray[np.uint8]
    actor_pose: NDArray[np.float32]
    actor_size: NDArray[np.float32]
    light_tick: NDArray[np.int32]
    light_state: NDArray[np.uint8]
    stop_pose: NDArray[np.float64]
    stop_half_width_m: NDArray[np.float64]
    ego_size_m: tuple[float, float, float]  # length, width, rear axle to centre
    events: tuple[Event, ...] = ()
    snapshots: tuple[Snapshot, ...] = ()
    latencies_ms: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    error: str = ""  # traceback where end is CRASHED
    provenance: dict[str, str] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str, int]:
        """What makes it unique in a suite: scenario id, planner, seed."""
        return self.scenario.id, self.planner, self.seed

    def validate(self) -> None:
        """Raise ValueError unless all per-tick arrays have T rows."""
        ticks = len(self.times_us)
        for name, array in (("ego", self.ego), ("controls", self.controls), ("progress_m", self.progress_m)):
            if len(array) != ticks:
                raise ValueError(f"episode {self.key}: {name} has {len(array)} rows, times have {ticks}")
