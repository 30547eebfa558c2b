"""Do two worlds agree about planners? Means over starts, R2 and rank correlation, with intervals over starts."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

Array = NDArray[np.float64]
DRAWS = 2000
HALVES = 400


def planner_means(truth: Array, guess: Array, weight: Array) -> tuple[Array, Array]:
    """Means (planners,) over the starts that count for each planner, NaN for who has none."""
    total = weight.sum(axis=1)
    safe = np.where(total > 0.0, total, np.nan)
    return (truth * weight).sum(axis=1) / safe, (guess * weight).sum(axis=1) / safe


def agreement(truth: Array, guess: Array) -> dict[str, float | None]:
    """R2 of the straight line from imagined to true means, Spearman's rank correlation, and the mean difference.

    None below three planners, and where all are alike.
    """
    kept = np.isfinite(truth) & np.isfinite(guess)
    x, y = guess[kept], truth[kept]
    if len(x) < 3 or np.ptp(x) < 1e-9 or np.ptp(y) < 1e-9:
        return {"r2": None, "rank_correlation": None, "mean_error": None, "planners": len(x)}
    return {
        "r2": float(np.corrcoef(x, y)[0, 1] ** 2),
        "rank_correlation": float(np.corrcoef(rankdata(x), rankdata(y))[0, 1]),
        "mean_error": float(np.abs(x - y).mean()),
        "planners": len(x),
    }


def with_intervals(truth: Array, guess: Array, weight: Array, seed: int = 0) -> dict[str, Any]:
    """`agreement` with 95 % percentile intervals; whole starts are drawn, the same for all planners."""
    result: dict[str, Any] = agreement(*planner_means(truth, guess, weight))
    rng = np.random.default_rng(seed)
    draws: list[tuple[float, float]] = []
    for _ in range(DRAWS if result["r2"] is not None else 0):
        columns = rng.integers(0, truth.shape[1], truth.shape[1])
        drawn = agreement(*planner_means(truth[:, columns], guess[:, columns], weight[:, columns]))
        if drawn["r2"] is not None and drawn["rank_correlation"] is not None:
            draws.append((drawn["r2"], drawn["rank_correlation"]))
    for k, name in enumerate(("r2", "rank_correlation")):
        values = [draw[k] for draw in draws]
        result[f"{name}_ci95"] = [float(v) for v in np.percentile(values, [2.5, 97.5])] if values else None
    return result


def mean_interval(values: Array, seed: int = 0) -> list[float]:
    """95 % percentile interval of the mean of values (starts,) over starts."""
    rng = np.random.default_rng(seed)
    means = values[rng.integers(0, len(values), (DRAWS, len(values)))].mean(axis=1)
    return [float(v) for v in np.percentile(means, [2.5, 97.5])]


def ceiling(truth: Array, seed: int = 0) -> dict[str, float | None]:
    """What no world could beat on other starts: how well the true means repeat between halves of the starts.

    Pearson's r between random halves, stepped up to all starts (Spearman 1910, Brown 1910) and squared; the rank
    correlation likewise, not squared. None where the planners are alike.
    """
    rng, count = np.random.default_rng(seed), truth.shape[1]
    plain, ranks = [], []
    for _ in range(HALVES if min(truth.shape[0] - 2, count - 1) > 0 else 0):
        order = rng.permutation(count)
        a, b = truth[:, order[: count // 2]].mean(axis=1), truth[:, order[count // 2 :]].mean(axis=1)
        if min(np.ptp(a), np.ptp(b)) > 1e-9:
            plain.append(np.corrcoef(a, b)[0, 1])
            ranks.append(np.corrcoef(rankdata(a), rankdata(b))[0, 1])
    if not plain:
        return {"r2": None, "rank_correlation": None}
    r, rank = float(np.mean(plain)), float(np.mean(ranks))
    return {"r2": (2.0 * r / (1.0 + r)) ** 2, "rank_correlation": 2.0 * rank / (1.0 + rank)}
