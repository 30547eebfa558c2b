"""What an imagined drive costs: one formula, for numpy arrays and for torch tensors alike.

Searching by samples and searching by gradients must mean the same thing by "better"; so must a learned and
an exact world model. Whoever wants a cost calls `cost_terms`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class LatentPlannerConfig:
    """Weights of the cost and sizes of the search."""

    steps: int = 6
    search: str = "bracket"  # one of drivesim.planning.search.STRATEGIES
    between: int = 6  # bracketing: profiles between the neighbours of the cheapest
    samples: int = 12
    rounds: int = 1
    elites: int = 4
    noise_mps2: float = 0.8
    temperature: float = 0.15  # MPPI: how much dearer a future may be and still count, in units of the cost
    gradient_steps: int = 4
    gradient_rate_mps2: float = 0.4
    knots: int = 1  # pieces of a searched profile; with one, no plan is cheap because it would brake later
    collision_weight: float = 20.0
    odds_weight: float = 0.7  # per factor e that a collision is likelier than odds_floor: rare things are told too low
    odds_floor: float = 0.004
    near_weight: float = 2.0
    red_weight: float = 4.0
    discount: float = 0.9
    risk_floor: float = 0.03  # probabilities below it are what the heads say of an empty street
    margin_m: float = 1.5  # collisions and near misses are asked for so much farther on, too; the likelier counts
    progress_weight: float = 1.5
    cruise_mps: float = 7.0  # no faster than what it sees in time to stop for
    crawl_mps: float = 4.0  # slower than this is time lost
    patience_s: float = 2.0  # with more of it lost than this, progress counts more and more ...
    impatience_1ps: float = 1.0  # ... by this share a second ...
    impatience_cap: float = 30.0  # ... up to this factor: a static scene must not hold the car for ever ...
    habit_cap: float = 10.0  # ... but floors of risk rise no more than this: what is likely stays so
    calm: float = 0.6  # ... but this share of it is gone half a metre a second above a crawl
    progress_scale_m: float = 15.0
    band: tuple[float, float] = (0.15, 0.75)  # the policy's quantiles between which imagination decides freely
    trust_weight: float = 0.5  # per (m/s2)^2 that a plan's first second is faster than the band ...
    brake_trust: float = 0.1  # ... and this share of it where it is slower
    mean_weight: float = 0.1  # a light pull to the policy's mean everywhere
    comfort_weight: float = 0.01
    change_weight: float = 0.02
    disagreement_weight: float = 0.0
    fallback_disagreement: float = 1.2
    fallback_surprise: float = 0.0  # 0: a surprise is told, but never acted on
    history_s: float = 0.5
    memory: float = 0.0  # share of what was imagined for now in what is believed now; the rest is what is seen

    @property
    def margins_m(self) -> tuple[float, ...]:
        """How much farther on the risk heads are asked; the likelier answer counts."""
        return (0.0, self.margin_m) if self.margin_m > 0.0 else (0.0,)


def _log(x: Any) -> Any:
    return np.log(x) if isinstance(x, np.ndarray) else x.log()


def cost_terms(
    config: LatentPlannerConfig, eager: float, risk: Any, doubt: Any, accelerations: Any, distance_m: Any,
    policy: Array, weight: Any,
) -> dict[str, Any]:  # fmt: skip
    """The terms (k,) of k imagined drives of p steps; their sum is the cost.

    Args:
        eager: factor on progress, from one up.
        risk: (k, p, 3) probabilities of collision, near miss and red light, the floor not yet taken off.
        doubt: (k,) mean disagreement of the imagination.
        accelerations: (k, p) realised, m/s2; distance_m: (k,) driven at the end.
        policy: (3,) mean and the two quantiles of the policy's acceleration, m/s2.
        weight: (p,) discount per step, of the same kind as `risk`.

    Arrays are numpy's or torch's, all of one kind; the result is of that kind.

    A collision costs twice: by its probability, and by how many times likelier it is than on an empty street. A head
    that was taught of rare things calls them too rare; that braking makes one twenty times rarer it knows well. Whoever
    is held up gets used to what stays: the floors of collisions and near misses rise with the eagerness, up to where a
    risk is more than a doubt. The trust in the policy does not fade with it: where the policy brakes, too, something is
    there.
    """
    c = config
    habit = min(eager, c.habit_cap)
    risk, odds = (risk - c.risk_floor).clip(0.0, None), _log((risk[..., 0] / (c.odds_floor * habit)).clip(1.0, None))
    used_to = c.risk_floor * (habit - 1.0)
    first = accelerations[:, :2].mean(1)
    faster, slower = (first - float(policy[2])).clip(0.0, None), (float(policy[1]) - first).clip(0.0, None)
    change = accelerations[:, 1:] - accelerations[:, :-1]
    return {
        "collision": c.collision_weight * ((risk[..., 0] - used_to).clip(0.0, None) * weight).sum(1),
        "odds": c.odds_weight * (odds * weight).sum(1),
        "near": c.near_weight * ((risk[..., 1] - used_to).clip(0.0, None) * weight).sum(1),
        "red light": c.red_weight * risk[..., 2].sum(1),
        "progress": -c.progress_weight * eager * distance_m / c.progress_scale_m,
        "trust": c.trust_weight * (faster**2 + c.brake_trust * slower**2)
        + c.mean_weight * (first - float(policy[0])) ** 2,
        "comfort": c.comfort_weight * (accelerations**2).sum(1) + c.change_weight * (change**2).sum(1),
        "disagreement": c.disagreement_weight * doubt,
    }  # fmt: skip
