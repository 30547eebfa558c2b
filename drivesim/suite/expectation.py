"""The driving score of an imagined drive in expectation over luck, instead of one draw of it.

The latent world draws a uniform number at every moment and makes events of hazards
(`drivesim.worlds.hazards`). Here the same drive goes on as if nothing ever happened, and every moment
at which it might have ended is weighted by how likely that is: one drive says what many drawn ones say on average.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from drivesim.datatypes import EndReason, Episode
from drivesim.scoring.infractions import judge, route_completion
from drivesim.scoring.leaderboard import COEFFICIENTS_2_1
from drivesim.suite.imagining import Imagined
from drivesim.worlds.hazards import Hazards, evidence
from drivesim.worlds.imagined_batch import ImaginedBatch

Array = NDArray[np.float64]
MOST_REDS = 3


@dataclass(frozen=True)
class Expectation:
    """How risks become a score.

    Attributes:
        hazards: how risks become events.
        goes_on: share of the rest of the drive that is still driven after a collision (0: it ends the drive).
        luck: without, nothing ever happens: the control that imagines nothing.
    """

    hazards: Hazards = field(default_factory=Hazards)
    goes_on: float = 0.25
    luck: bool = True

    def likely(self, trace: Trace, readouts: Sequence[str]) -> Array:
        """(t, 2) hazards of a collision and of a run red light."""
        seen = evidence(trace.readings, readouts, trace.speeds_mps)
        return self.hazards.of(trace.risks, trace.speeds_mps, seen) * self.luck


@dataclass(frozen=True)
class Trace:
    """What an imagined drive that nothing stopped says at its latent ticks.

    Attributes:
        completion: (t + 1,) percent of the route driven, the start first.
        risks: (t, 3) probabilities of collision, near miss and red light at each tick after the start.
        speeds_mps: (t,) at those ticks.
        readings: (t, read-outs) there.
        outside_percent: of the driven way, outside the route's lanes.
    """

    completion: Array
    risks: Array
    speeds_mps: Array
    readings: Array
    outside_percent: float


def traces(imagined: Imagined) -> list[Trace]:
    """One for each drive of a batch that was driven with `ImaginationConfig(strikes=False)`."""
    return [_trace(imagined.batch, row, episode) for row, episode in enumerate(imagined.episodes)]


def _trace(batch: ImaginedBatch, row: int, episode: Episode) -> Trace:
    ticks = len(episode.times_us)
    steps = (ticks - 1) // batch.latent_ticks
    at = np.minimum(batch.latent_ticks * np.arange(steps + 1), ticks - 1)
    at[-1] = ticks - 1  # what was driven after the last latent tick counts
    completion = [
        route_completion(replace(episode, progress_m=episode.progress_m[: k + 1], end=EndReason.TIMEOUT)) for k in at
    ]
    completion[-1] = route_completion(episode)
    return Trace(
        completion=np.array(completion),
        risks=np.array([risk[row] for risk in batch.risks[:steps]], np.float64).reshape(steps, 3),
        speeds_mps=np.abs(episode.ego[batch.latent_ticks * np.arange(1, steps + 1), 4]),
        readings=np.array([read[row] for read in batch.readings[1 : steps + 1]], np.float64).reshape(steps, -1),
        outside_percent=judge(episode).counts.outside_lanes_percent,
    )


def first_hits(hazards: Array) -> tuple[Array, float]:
    """How likely the first event is at each moment (t,), and that there is none, from hazards (t,)."""
    alive = np.concatenate([[1.0], np.cumprod(1.0 - hazards)])
    return alive[:-1] * hazards, float(alive[-1])


def counts(hazards: Array, most: int = MOST_REDS) -> Array:
    """(t + 1, most + 1) how likely 0, 1, .. events have happened before each moment and, last, at the end.

    The last column is "that many or more".
    """
    table = np.zeros((len(hazards) + 1, most + 1))
    table[0, 0] = 1.0
    for k, p in enumerate(hazards):
        table[k + 1] = table[k] * (1.0 - p)
        table[k + 1, 1:] += table[k, :-1] * p
        table[k + 1, -1] += table[k, -1] * p
    return table


def expected_events(trace: Trace, readouts: Sequence[str], config: Expectation | None = None) -> tuple[float, float]:
    """How likely a drive has a collision, and how many red lights it runs if it has none."""
    likely = (config or Expectation()).likely(trace, readouts)
    return 1.0 - first_hits(likely[:, 0])[1], float(likely[:, 1].sum())


def expected_score(trace: Trace, readouts: Sequence[str], config: Expectation | None = None) -> float:
    """CARLA Leaderboard 2.1's driving score (0 to 100), in expectation."""
    config = config or Expectation()
    likely = config.likely(trace, readouts)
    hits, survived = first_hits(likely[:, 0])
    reds = counts(likely[:, 1])
    number = COEFFICIENTS_2_1["red_light"] * np.arange(reds.shape[1])
    final = trace.completion[-1]
    reached = trace.completion[1:] + config.goes_on * (final - trace.completion[1:])
    costs = np.where(_walks(trace.readings, readouts), COEFFICIENTS_2_1["collision_walker"],
                     COEFFICIENTS_2_1["collision_vehicle"])  # fmt: skip
    struck = (reds[:-1] / (1.0 + costs[:, None] + number)).sum(axis=1)
    whole = survived * final * float((reds[-1] / (1.0 + number)).sum()) + float((hits * reached * struck).sum())
    inside = min(max(1.0 - trace.outside_percent / 100.0, 0.0), 1.0)
    return float(whole * inside)


def _walks(readings: Array, readouts: Sequence[str]) -> NDArray[np.bool_]:
    """Whether it is a walker who is hit: the heads say that something is, the probe what is ahead."""
    column = {name: k for k, name in enumerate(readouts)}
    if "walker_ahead" not in column:
        return np.zeros(len(readings), dtype=bool)
    lead = readings[:, column["lead_present"]] if "lead_present" in column else np.zeros(len(readings))
    return np.asarray(readings[:, column["walker_ahead"]] > np.maximum(lead, 0.0))
