"""The search of the latent planner: one small interface, several strategies.

A strategy gets the proposals with their costs and may ask for more futures to be imagined; it returns all
that it knows. Nothing is forgotten, so no strategy returns a best plan that is dearer than the best proposal.

CEM: Rubinstein 1999; iCEM: Pinneri et al. 2020; MPPI: Williams et al. 2017; by gradient: see `gradient.py`. Bracketing
is what is done on a line since Kiefer 1953, here a handful of points at a time: a batch costs little more than one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from drivesim.config import ConfigError, nearest
from drivesim.datatypes import EgoState, RouteAhead
from drivesim.planning.cost import LatentPlannerConfig, cost_terms
from drivesim.planning.kinematics import imagined_kinematics
from drivesim.planning.proposals import Futures, drive_route

Array = NDArray[np.float64]

SLOWEST_MPS2, FASTEST_MPS2 = -6.0, 2.5
DECIMALS = 6  # of m/s2 and 1/m: actions that agree so far are the same drive


class Imagination(Protocol):
    """What a search asks of a world model."""

    def imagine(self, latents: NDArray[np.float32], speed_mps: float, actions: Array) -> tuple[Any, Any]:
        """Latents (2, n, d) under actions (k, p, 2): imagined (k, p, n, d) and disagreement (k, p)."""
        ...

    def risks(
        self, current: NDArray[np.float32], imagined: Any, kinematics: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Probabilities (k, p, q, 3) of collision, near miss and red light at imagined moments (k, p, n, d).

        Each moment is asked about q times: kinematics (k, p, q, 16).
        """
        ...


@dataclass(frozen=True)
class Candidates:
    """k futures and what imagination says of them.

    Attributes:
        wanted: (k, p) accelerations asked for; the futures hold what limits and bends leave of them.
        costs: (k,), the sums of `terms`.
        doubt: (k,) mean disagreement.
        ahead: (k, n, d) the latent imagined for the end of the first step.
        imagined: how many futures were imagined on the way here, those of gradient steps included.
    """

    wanted: Array
    futures: Futures
    costs: Array
    terms: dict[str, Array]
    doubt: Array
    ahead: NDArray[np.float32]
    imagined: int

    def join(self, more: Candidates) -> Candidates:
        """Both sets."""
        return Candidates(
            np.concatenate([self.wanted, more.wanted]), Futures.join([self.futures, more.futures]),
            np.concatenate([self.costs, more.costs]),
            {key: np.concatenate([self.terms[key], more.terms[key]]) for key in self.terms},
            np.concatenate([self.doubt, more.doubt]), np.concatenate([self.ahead, more.ahead]),
            self.imagined + more.imagined,
        )  # fmt: skip


@dataclass(frozen=True)
class Problem:
    """One planning problem: where the car is, what it sees, what it wants.

    Attributes:
        route: the route ahead with the speeds that the planner allows itself.
        context: (2, n, d) the latent half a second ago and now.
        motion: (16,) `kinematics` now.
        policy: (3,) mean and band of the policy's acceleration, m/s2.
        eager: factor on progress.
    """

    model: Imagination
    config: LatentPlannerConfig
    ego: EgoState
    route: RouteAhead
    context: NDArray[np.float32]
    motion: NDArray[np.float32]
    policy: Array
    eager: float

    def drive(self, wanted: Array) -> Futures:
        """Acceleration profiles (k, p) driven along the route."""
        return drive_route(self.ego.speed_mps, self.route, wanted)

    def evaluate(self, wanted: Array) -> Candidates:
        """Drive, imagine and score acceleration profiles (k, p).

        Limits, bends and standing still make many of them the same drive: each drive is imagined once.
        """
        futures = self.drive(wanted)
        rows, back = distinct(futures.actions)
        driven = futures.take(rows)
        imagined, disagreement = self.model.imagine(self.context, self.ego.speed_mps, driven.actions)
        risk = self.risks(driven, imagined)
        doubt = np.asarray(disagreement, dtype=np.float64).mean(1)
        found = self.scored(wanted, futures, risk[back], doubt[back], np.asarray(imagined[:, 0])[back])
        return replace(found, imagined=len(rows))

    def risks(self, futures: Futures, imagined: Any) -> Array:
        """Probabilities (k, p, 3) at imagined moments; of collisions and near misses, here or a margin farther on."""
        speeds, actions, distances = futures.speeds_mps, futures.actions, futures.distances_m
        asked = [
            imagined_kinematics(self.motion, speeds, actions, distances + margin) for margin in self.config.margins_m
        ]
        told = self.model.risks(self.context[1], imagined, np.stack(asked, axis=2)).astype(np.float64)
        return np.concatenate([told[..., :2].max(2), told[:, :, 0, 2:]], axis=-1)

    def scored(
        self, wanted: Array, futures: Futures, risk: Array, doubt: Array, ahead: NDArray[np.float32]
    ) -> Candidates:
        """Candidates of known risk (k, p, 3)."""
        weight = self.config.discount ** np.arange(wanted.shape[1])
        terms = cost_terms(
            self.config, self.eager, risk, doubt, futures.actions[..., 0], futures.distances_m[:, -1], self.policy,
            weight,
        )  # fmt: skip
        return Candidates(wanted, futures, np.sum(list(terms.values()), axis=0), terms, doubt, ahead, len(wanted))


def distinct(actions: Array) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows (m,) of actions (k, p, 2) that differ, in their order, and for each of the k which of the m it is."""
    keys = dict[bytes, int]()
    back = [keys.setdefault(row.tobytes(), len(keys)) for row in np.round(actions, DECIMALS) + 0.0]
    first = [back.index(number) for number in range(len(keys))]
    return np.array(first, np.int64), np.array(back, np.int64)


Strategy = Callable[[Problem, Candidates, np.random.Generator], Candidates]


def spread(knots: Array, steps: int) -> Array:
    """Knots (k, m) held over their share of the steps: (k, steps). A searched profile is piecewise constant."""
    return np.repeat(knots, -(-steps // knots.shape[1]), axis=1)[:, :steps]


def to_knots(wanted: Array, knots: int) -> Array:
    """The nearest knots (k, m) of profiles (k, steps): the mean over each knot's steps."""
    steps = wanted.shape[1]
    held = -(-steps // knots)
    owner = np.minimum(np.arange(steps) // held, knots - 1)
    return np.stack([wanted[:, owner == i].mean(1) for i in range(owner[-1] + 1)], axis=1)


def _noise(config: LatentPlannerConfig, rng: np.random.Generator) -> Array:
    return spread(rng.normal(0.0, config.noise_mps2, (config.samples, config.knots)), config.steps)


def _proposals(_problem: Problem, found: Candidates, _rng: np.random.Generator) -> Candidates:
    """No search: the proposals as they are."""
    return found


def _bracket(problem: Problem, found: Candidates, _rng: np.random.Generator) -> Candidates:
    """Finer between the neighbours of the cheapest: profiles of one piece are a line, and samples ask it twice over.

    Raises:
        ConfigError: profiles of several pieces.
    """
    c = problem.config
    if c.knots != 1:
        raise ConfigError(
            f"search 'bracket' wants profiles of one piece, and knots is {c.knots}: take icem, or knots 1"
        )
    for _ in range(c.rounds):
        asked = np.unique(found.wanted[:, 0])
        best = int(np.searchsorted(asked, found.wanted[np.argmin(found.costs), 0]))
        low, high = asked[max(best - 1, 0)], asked[min(best + 1, len(asked) - 1)]
        between = np.linspace(low, high, c.between + 2)[1:-1]
        found = found.join(problem.evaluate(spread(between[:, None], c.steps)))
    return found


def _icem(problem: Problem, found: Candidates, rng: np.random.Generator) -> Candidates:
    """Smooth noise around the elites of everything seen so far."""
    c = problem.config
    for _ in range(c.rounds):
        elite = found.wanted[np.argsort(found.costs)[: c.elites]]
        noise = _noise(c, rng)
        more = elite[rng.integers(0, len(elite), c.samples)] + noise
        found = found.join(problem.evaluate(np.clip(more, SLOWEST_MPS2, FASTEST_MPS2)))
    return found


def _cem(problem: Problem, found: Candidates, rng: np.random.Generator) -> Candidates:
    """A Gaussian over the knots, fitted to the elites of each round's own samples; its mean is tried last."""
    c = problem.config
    recent = found
    for _ in range(c.rounds):
        elite = to_knots(recent.wanted[np.argsort(recent.costs)[: c.elites]], c.knots)
        deviation = np.maximum(elite.std(0), 0.25 * c.noise_mps2)
        knots = elite.mean(0) + deviation * rng.normal(0.0, 1.0, (c.samples, elite.shape[1]))
        recent = problem.evaluate(np.clip(spread(knots, c.steps), SLOWEST_MPS2, FASTEST_MPS2))
        found = found.join(recent)
    mean = to_knots(recent.wanted[np.argsort(recent.costs)[: c.elites]], c.knots).mean(0, keepdims=True)
    return found.join(problem.evaluate(spread(mean, c.steps)))


def _mppi(problem: Problem, found: Candidates, rng: np.random.Generator) -> Candidates:
    """Noise around one nominal profile, which moves to the mean weighted by exp(-cost / temperature)."""
    c = problem.config
    nominal = found.wanted[int(np.argmin(found.costs))][None]
    for _ in range(c.rounds):
        recent = problem.evaluate(np.clip(nominal + _noise(c, rng), SLOWEST_MPS2, FASTEST_MPS2))
        found = found.join(recent)
        share = np.exp(-(recent.costs - recent.costs.min()) / c.temperature)
        nominal = (share / share.sum()) @ recent.wanted
        nominal = nominal[None]
    return found.join(problem.evaluate(nominal))


def _gradient(problem: Problem, found: Candidates, _rng: np.random.Generator) -> Candidates:
    """The elite proposals, improved by descending the cost through the frozen world model."""
    from drivesim.planning.gradient import descend

    starts = found.wanted[np.argsort(found.costs)[: problem.config.elites]]
    improved, imagined = descend(problem, to_knots(starts, problem.config.knots))
    better = problem.evaluate(np.clip(spread(improved, problem.config.steps), SLOWEST_MPS2, FASTEST_MPS2))
    found = found.join(better)
    return Candidates(
        found.wanted, found.futures, found.costs, found.terms, found.doubt, found.ahead, found.imagined + imagined
    )


STRATEGIES: dict[str, Strategy] = {
    "proposals": _proposals,
    "bracket": _bracket,
    "icem": _icem,
    "cem": _cem,
    "mppi": _mppi,
    "gradient": _gradient,
}


def search(problem: Problem, proposals: Array, rng: np.random.Generator) -> Candidates:
    """Score the proposals (k, p) and search on from them as the configuration says.

    Raises:
        ConfigError: no such strategy.
    """
    name = problem.config.search
    if name not in STRATEGIES:
        raise ConfigError(f"unknown search {name!r}: {nearest(name, STRATEGIES)}")
    return STRATEGIES[name](problem, problem.evaluate(proposals), rng)
