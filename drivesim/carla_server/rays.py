"""One measurement of a sensor that casts rays: prepared on the reactor's thread, cast on the painter's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from drivesim.carla_server.actors import ServerActor
from drivesim.carla_server.poses import Floats
from drivesim.town.render.raycast import Hits, RayCaster, Staged
from drivesim.town.state import TownState

RAYS_PER_TICK = 2_000_000  # a sensor that asks for more per measurement gets this many
SHARED_FROM = 4_000  # rays from which on several threads share a measurement

RowIds = NDArray[np.uint32]


class RayScene:
    """The scene of one tick for all sensors that cast rays in it."""

    def __init__(self, caster: RayCaster, state: TownState, row_id: RowIds, first_light_id: int) -> None:
        self.caster = caster
        self.state = state
        self.staged: Staged = caster.stage(state)
        self.row_id = row_id
        self.first_light_id = first_light_id

    def actor_ids(self, hits: Hits) -> NDArray[np.uint32]:
        """(n,) ids of the vehicles, walkers, props and traffic lights that were hit; 0 for all else."""
        row, light = hits.actor_row, self.caster.signal(hits)
        ids = np.where(row >= 0, self.row_id[np.maximum(row, 0)], 0)
        return np.where(light >= 0, self.first_light_id + light, ids).astype(np.uint32)


@dataclass
class Sweep:
    """Rays of one sensor at one tick.

    `rays` are unit directions in the sensor's frame, `matrix` is world from sensor. `pack` turns what was
    hit into the message's body; it runs on the reactor's thread, so that the sensor's dice fall in order.
    """

    actor: ServerActor
    matrix: Floats
    rotation: Floats
    rays: NDArray[np.float32]  # (n, 3)
    reach_m: float
    hide_row: int
    pack: Callable[[RayScene, Sweep], bytes]
    hits: Hits = field(init=False)
    world: NDArray[np.float32] = field(init=False)  # (n, 3) the rays in the world

    def __post_init__(self) -> None:
        self.hits = Hits.empty(len(self.rays))
        self.world = np.ascontiguousarray(self.rays @ self.matrix[:3, :3].T.astype(np.float32))

    def tasks(self, scene: RayScene, threads: int) -> list[Callable[[], None]]:
        """The work, cut into parts where it is much."""
        count = len(self.rays)
        parts = threads if count >= SHARED_FROM else 1
        cuts = [count * k // parts for k in range(parts + 1)]
        return [self._task(scene, part) for part in pairwise(cuts) if part[0] < part[1]]

    def _task(self, scene: RayScene, part: tuple[int, int]) -> Callable[[], None]:
        def cast() -> None:
            scene.caster.cast(scene.staged, self.matrix[:3, 3], self.world, self.reach_m, hide_row=self.hide_row,
                              part=part, out=self.hits)  # fmt: skip

        return cast

    def points_m(self) -> Floats:
        """(n, 3) where the rays end, in the world."""
        return np.asarray(self.matrix[:3, 3] + self.world * self.hits.range_m[:, None].astype(np.float64))


def enclosing_row(state: TownState, row: int, matrix: Floats) -> int:
    """The parent's row if a sensor at `matrix` (4, 4) sits within the parent's box: its rays pass through; else -1."""
    if row < 0:
        return -1
    away = matrix[:3, 3] - state.xyz[row]
    cosine, sine = np.cos(state.rotation[row, 2]), np.sin(state.rotation[row, 2])
    along, across = away[0] * cosine + away[1] * sine, away[1] * cosine - away[0] * sine
    half = state.half_size[row]
    inside = abs(along) <= half[0] and abs(across) <= half[1] and -0.1 <= away[2] <= 2.0 * half[2]
    return row if inside else -1
