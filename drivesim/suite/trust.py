"""How far an imagined score can be trusted: drift, disagreement, distance from what the logs look like.

Everything is calibrated on the logs that the imagined drives start from, before any planner drives:

- drift: the model is rolled along the logged actions and compared with the latents that came. The error
  is divided by that of the better of two guesses which need no model, "nothing changes" (persistence)
  and "as on average in this log"; the second is there because what is unpredictable, noise for one,
  makes any average look better than persistence. 1 is as bad as the better guess.
- disagreement: of the predictor's members, over the 99th percentile of what they show along logged
  actions; 1 is that percentile with a margin.
- out of distribution: Mahalanobis distance of a latent in the logs' principal axes, with what lies off
  them, over the 99th percentile (with a margin) of logs, or quarters of few logs, that the reference was not
  fitted to.

A drive over any limit has no valid score: the reason is said instead.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

from drivesim.worlds.imagined_batch import ImaginationCore
from drivesim.worlds.logged_drive import EncodedDrive

Array = NDArray[np.float64]
Floats = NDArray[np.float32]

FEW_LOGS, PIECES = 8, 4  # fewer logs are cut into pieces: whole ones would say that everything else is far away
AXES = 48  # principal axes at most, and no more than a quarter of the latents
FOLDS = 5
SHRINKAGE = 0.05  # of each axis' variance towards the mean one
RMS_RANGE = (0.4, 2.0)  # standardised latents of what the encoder was trained on have about 1


@dataclass(frozen=True)
class TrustLimits:
    """From where on a score is not valid; each is 1 where a drive is as bad as the worst of the logs."""

    drift: float = 1.0
    disagreement: float = 1.0
    out_of_distribution: float = 1.0
    margin: float = 1.5  # on the 99th percentiles of the logs


@dataclass(frozen=True)
class Trust:
    """What is known about one imagined drive.

    Attributes:
        drift, disagreement, out_of_distribution: over their scale, see the module's text.
        reason: why the score is not valid, or "".
    """

    drift: float
    disagreement: float
    out_of_distribution: float
    reason: str

    @property
    def valid(self) -> bool:
        """Whether the score may be used."""
        return not self.reason


class LatentReference:
    """Where the latents of the logs lie."""

    def __init__(self, latents: Floats, groups: NDArray[np.int64], margin: float) -> None:
        """Fit to latents (t, n, d); `groups` (t,) says of which log each is."""
        flat = latents.reshape(len(latents), -1).astype(np.float64)
        self._fit(flat)
        self.scale = 1.0
        self.scale = margin * float(np.percentile(self._held_out(flat, groups), 99.0))

    def _fit(self, flat: Array) -> None:
        self._mean = flat.mean(0)
        centred = flat - self._mean
        self._axes, variance = _principal_axes(centred, max(1, min(AXES, len(flat) // 4)))
        self._variance = (1.0 - SHRINKAGE) * variance + SHRINKAGE * max(float(variance.mean()), 1e-9)
        rest = centred - centred @ self._axes.T @ self._axes
        self._rest = max(float(np.square(rest).sum(1).mean()), 0.05 * float(np.square(centred).sum(1).mean()), 1e-9)

    def _held_out(self, flat: Array, groups: NDArray[np.int64]) -> Array:
        """Distances of the latents of each fold of logs from a reference fitted to the others."""
        names, first, count = np.unique(groups, return_index=True, return_counts=True)
        log = np.searchsorted(names, groups)
        piece = (np.arange(len(flat)) - first[log]) * PIECES // count[log]
        fold = log % FOLDS if len(names) >= FEW_LOGS else piece
        found = []
        for number in np.unique(fold):
            inside = fold == number
            other = LatentReference.__new__(LatentReference)
            other._fit(flat[~inside])
            other.scale = 1.0
            found.append(other.distance(flat[inside]))
        return np.concatenate(found)

    def distance(self, latents: Floats | Array) -> Array:
        """Distance of latents (t, ...) from the reference: (t,); 1 is the limit."""
        centred = latents.reshape(len(latents), -1).astype(np.float64) - self._mean
        along = centred @ self._axes.T
        rest = np.square(centred).sum(1) - np.square(along).sum(1)
        squared = (np.square(along) / self._variance).mean(1) + np.maximum(rest, 0.0) / self._rest
        return np.asarray(np.sqrt(squared) / self.scale)


def _principal_axes(centred: Array, count: int) -> tuple[Array, Array]:
    """The first principal axes (count, d) of centred rows (t, d), and the variance (count,) along them."""
    t, d = centred.shape
    wide = t < d
    gram = centred @ centred.T if wide else centred.T @ centred
    size = len(gram)
    values, vectors = eigh(gram, subset_by_index=[max(size - count, 0), size - 1])
    axes = vectors.T @ centred if wide else vectors.T
    return axes / np.maximum(np.linalg.norm(axes, axis=1, keepdims=True), 1e-12), np.maximum(values, 0.0) / t


@dataclass(frozen=True)
class DriftTable:
    """Squared errors along logged actions, summed over a latent, for every start that has a future.

    Attributes:
        starts: (log, tick) -> row.
        error, guess: (rows, h) of the model and of the better guess; NaN beyond the log's end.
        doubt: (rows, h) the members' disagreement.
    """

    starts: dict[tuple[str, int], int]
    error: Array
    guess: Array
    doubt: Array

    def drift(self, steps: int) -> float:
        """Over all starts, up to `steps` ahead."""
        return float(np.nansum(self.error[:, :steps]) / max(float(np.nansum(self.guess[:, :steps])), 1e-9))

    def curve(self) -> Array:
        """(h,) drift of each step by itself, over all starts."""
        return np.asarray(np.nansum(self.error, axis=0) / np.maximum(np.nansum(self.guess, axis=0), 1e-9))

    def drift_at(self, log: str, tick: int, steps: int) -> float:
        """At one start, drawn half way towards that of all starts: one future says little."""
        known = np.maximum(np.isfinite(self.error[:, :steps]).sum(0), 1)
        error = float((np.nansum(self.error[:, :steps], axis=0) / known).sum())
        guess = float((np.nansum(self.guess[:, :steps], axis=0) / known).sum())
        row = self.starts.get((log, tick))
        if row is not None and np.isfinite(self.error[row, :steps]).all():
            error, guess = error + self.error[row, :steps].sum(), guess + self.guess[row, :steps].sum()
        return float(error / max(guess, 1e-9))


def drift_table(model: ImaginationCore, drives: Sequence[EncodedDrive], steps: int, every: int = 2) -> DriftTable:
    """Roll the model along the logged actions from every `every`-th tick.

    Raises:
        ValueError: no log has a tick with a past and a future.
    """
    errors, guesses, doubts = [], [], []
    starts: dict[tuple[str, int], int] = {}
    for drive in drives:
        z, count = drive.latents, len(drive.latents)
        rows = np.arange(1, count - 1, every)
        if not len(rows):
            continue
        window = rows[:, None] + np.arange(steps)
        known = window < count - 1
        actions = drive.actions[np.minimum(window, count - 2)]
        imagined, doubt = model.rollout(z[rows - 1], z[rows], actions, drive.speeds_mps[rows])
        came = z[np.minimum(window + 1, count - 1)]
        axes = (2, 3)
        stays = np.square(came - z[rows][:, None]).sum(axes, dtype=np.float64)
        average = np.square(came - z.mean(0)).sum(axes, dtype=np.float64)
        errors.append(np.where(known, np.square(imagined - came).sum(axes, dtype=np.float64), np.nan))
        guesses.append(np.where(known, _better(stays, average, known), np.nan))
        doubts.append(np.where(known, doubt, np.nan))
        starts |= {(drive.name, int(row)): len(starts) + k for k, row in enumerate(rows)}
    if not errors:
        raise ValueError("no log has a tick with a past and a future: record longer drives")
    return DriftTable(starts, np.concatenate(errors), np.concatenate(guesses), np.concatenate(doubts))


def _better(stays: Array, average: Array, known: NDArray[np.bool_]) -> Array:
    """The guess that is better over a whole log at each number of steps ahead, not start by start."""
    sums = [np.where(known, guess, 0.0).sum(0) for guess in (stays, average)]
    return np.where(sums[0] <= sums[1], stays, average)


def _percentile_by_step(values: Array, percent: float) -> Array:
    """(h,) percentile of each column of (rows, h) without its NaN; a column of nothing else has the last one's."""
    found, last = [], 0.0
    for column in values.T:
        known = column[np.isfinite(column)]
        last = float(np.percentile(known, percent)) if len(known) else last
        found.append(last)
    return np.array(found)


class TrustGauge:
    """Judges imagined drives by what the model does on the logs."""

    def __init__(
        self, model: ImaginationCore, drives: Sequence[EncodedDrive], steps: int, limits: TrustLimits | None = None,
        reference: Sequence[EncodedDrive] | None = None,
    ) -> None:  # fmt: skip
        """Calibrate.

        Args:
            drives: the logs that imagined drives start from.
            steps: latent ticks of the longest imagined drive.
            reference: logs that say what is usual; the same ones when None.
        """
        self.limits = limits or TrustLimits()
        self.table = drift_table(model, drives, steps)
        usual = reference if reference is not None else drives
        groups = np.repeat(np.arange(len(usual)), [len(drive.latents) for drive in usual])
        self.reference = LatentReference(
            np.concatenate([drive.latents for drive in usual]), groups, self.limits.margin
        )  # fmt: skip
        known = self.table if reference is None else drift_table(model, usual, steps)
        self._doubt = np.maximum(self.limits.margin * _percentile_by_step(known.doubt, 99.0), 1e-9)

    def judge(self, start: str, latents: Floats, doubts: Array) -> Trust:
        """One imagined drive.

        Args:
            start: id of the start, "<log>@<tick>".
            latents: (t + 1, n, d), the encoded start first.
            doubts: (t,) disagreement of each imagined step.
        """
        log, tick = start_of(start)
        steps = len(doubts)
        drift = self.table.drift_at(log, tick, steps) if steps else 0.0
        disagreement = float(np.mean(doubts / self._doubt[:steps])) if steps else 0.0
        distance = float(self.reference.distance(latents).max())
        rms = float(np.sqrt(np.square(latents[0]).mean()))
        limits, reasons = self.limits, []
        if not np.isfinite([drift, disagreement, distance]).all():
            return Trust(1e3, 1e3, 1e3, "imagination left the numbers")
        if not RMS_RANGE[0] <= rms <= RMS_RANGE[1]:
            reasons.append(f"the start is nothing that the encoder was trained on (latent of size {rms:.2g}, not 1)")
        if distance > limits.out_of_distribution:
            reasons.append(f"out of distribution: {distance:.2f} times as far from the logs' latents as they go")
        if drift >= limits.drift:
            reasons.append(f"drift: {drift:.2f} times the error of a guess without a model over {0.5 * steps:g} s")
        if disagreement > limits.disagreement:
            reasons.append(f"the predictor's members disagree {disagreement:.2f} times as much as on logged actions")
        return Trust(drift, disagreement, distance, "; ".join(reasons))


def start_of(scenario_id: str) -> tuple[str, int]:
    """Log and latent tick of a start's id.

    Raises:
        ValueError: it is no start's id.
    """
    found = re.fullmatch(r"(.+)@(\d+)", scenario_id)
    if found is None:
        raise ValueError(f"{scenario_id!r} is no start (log@tick)")
    return found[1], int(found[2])
