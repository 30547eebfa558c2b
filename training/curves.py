"""A run to look at: every column of metrics.jsonl as a curve, one self-contained SVG."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

from drivesim.runs import Run

COLUMNS, WIDTH_PX, HEIGHT_PX, GAP_PX, HEAD_PX = 4, 250, 110, 44, 40
POINTS = 400  # drawn of a curve at most
SMOOTH = 0.03  # of a stage's steps
RAW, TREND, INK = "#c9d4e0", "#1f5a93", "#333"
HIDDEN = {"stage", "step"}


def series(run: Run) -> dict[str, dict[str, NDArray[np.float64]]]:
    """Stage -> metric -> (n, 2) step and value; of a step that was done again after a crash the last one counts."""
    found: dict[str, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for line in run.metrics():
        if not {"stage", "step"} <= line.keys():
            continue
        for name, value in line.items():
            if name not in HIDDEN and isinstance(value, int | float) and np.isfinite(value):
                found[str(line["stage"])][name][int(line["step"])] = float(value)
    return {
        stage: {name: np.array(sorted(points.items())) for name, points in metrics.items()}
        for stage, metrics in found.items()
    }


def smoothed(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Running mean over a small share of the curve; shorter at its ends."""
    half = int(SMOOTH * len(values))
    total = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    low, high = np.maximum(index - half, 0), np.minimum(index + half + 1, len(values))
    return np.asarray((total[high] - total[low]) / (high - low))


def _path(x: NDArray[np.float64], y: NDArray[np.float64], color: str, width: float) -> str:
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    return f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="{width}"/>'


def _panel(name: str, points: NDArray[np.float64], left: float, top: float) -> str:
    keep = np.unique(np.linspace(0, len(points) - 1, min(POINTS, len(points))).astype(int))
    trend = smoothed(points[:, 1])
    # A few wild steps must not flatten the rest.
    low, high = np.percentile(points[:, 1], [1, 99])
    low, high = min(low, trend.min()), max(high, trend[len(trend) // 20 :].max())
    span = (high - low) or max(abs(high), 1.0)
    steps = points[keep, 0]
    x = left + (steps - points[0, 0]) / max(points[-1, 0] - points[0, 0], 1.0) * WIDTH_PX

    def y(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(top + HEIGHT_PX * (1.0 - np.clip((values - low) / span, 0.0, 1.0)))

    title = f"{escape(name)}: {trend[-1]:.3g}"
    return (
        f'<text x="{left}" y="{top - 8}" font-weight="600">{title}</text>'
        f'<rect x="{left}" y="{top}" width="{WIDTH_PX}" height="{HEIGHT_PX}" fill="none" stroke="#e3e3e3"/>'
        + _path(x, y(points[keep, 1]), RAW, 1.0) + _path(x, y(trend[keep]), TREND, 1.8)
        + f'<text x="{left + 3}" y="{top + 11}" fill="#888">{high:.3g}</text>'
        f'<text x="{left + 3}" y="{top + HEIGHT_PX - 4}" fill="#888">{low:.3g}</text>'
        f'<text x="{left + WIDTH_PX}" y="{top + HEIGHT_PX + 13}" fill="#888" text-anchor="end">'
        f"step {points[-1, 0]:.0f}</text>"
    )  # fmt: skip


def draw(stages: dict[str, dict[str, NDArray[np.float64]]]) -> str:
    """All stages below each other."""
    parts: list[str] = []
    top, wide = 0.0, COLUMNS * (WIDTH_PX + GAP_PX) + GAP_PX
    for stage, metrics in stages.items():
        parts.append(f'<text x="{GAP_PX}" y="{top + 26}" font-size="16" font-weight="700">{escape(stage)}</text>')
        top += HEAD_PX
        shown: Sequence[tuple[str, NDArray[np.float64]]] = [(n, p) for n, p in metrics.items() if len(p) > 1]
        for k, (name, points) in enumerate(shown):
            column, row = k % COLUMNS, k // COLUMNS
            left = GAP_PX + column * (WIDTH_PX + GAP_PX)
            parts.append(_panel(name, points, left, top + 16 + row * (HEIGHT_PX + GAP_PX)))
        top += 16 + -(-len(shown) // COLUMNS) * (HEIGHT_PX + GAP_PX)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide}" height="{top + 10:.0f}" '
        f'font-family="system-ui,sans-serif" font-size="12" fill="{INK}">'
        f'<rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


def save_curves(run: Run) -> None:
    """Write curves.svg into the run's folder; a reader sees the old one or the whole new one."""
    partial = run.path / "curves.svg.partial"
    partial.write_text(draw(series(run)))
    partial.replace(run.path / "curves.svg")
