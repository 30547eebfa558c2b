"""The figure of the planners study: driving score against compute, one point a planner, as SVG."""

from __future__ import annotations

import math
from html import escape
from typing import Any

WIDTH_PX, HEIGHT_PX, PANEL_PX, TOP_PX, LEFT_PX, GAP_PX = 980, 460, 400, 60, 56, 70
INK, QUIET, PRIVILEGED = "#1f77b4", "#999", "#d62728"


def _log_ticks(low: float, high: float) -> list[float]:
    """1, 2, 5, 10, 20 ... from the last below `low` to the first above `high`."""
    ticks = [m * 10.0**e for e in range(-2, 6) for m in (1.0, 2.0, 5.0)]
    first = max((t for t in ticks if t <= low), default=ticks[0])
    last = min((t for t in ticks if t >= high), default=ticks[-1])
    return [t for t in ticks if first <= t <= max(last, first * 2.0)]


class Panel:
    """One chart: a score of 0 to 100 upwards, compute on a logarithmic axis to the right."""

    def __init__(self, left_px: float, label: str, values: list[float]) -> None:
        self.left_px, self.label = left_px, label
        self.ticks = _log_ticks(min(values, default=1.0), max(values, default=10.0))

    def x(self, value: float) -> float:
        """Pixels to the right."""
        low, high = math.log(self.ticks[0]), math.log(self.ticks[-1])
        share = (math.log(max(value, self.ticks[0])) - low) / (high - low)
        return self.left_px + share * PANEL_PX

    @staticmethod
    def y(score: float) -> float:
        """Pixels down."""
        return TOP_PX + (1.0 - min(max(score, 0.0), 100.0) / 100.0) * (HEIGHT_PX - TOP_PX - 70)

    def axes(self) -> list[str]:
        """Frame, ticks and labels."""
        low, high = self.y(0.0), self.y(100.0)
        parts = [
            f'<rect x="{self.left_px:.0f}" y="{high:.0f}" width="{PANEL_PX}" height="{low - high:.0f}" '
            f'fill="none" stroke="{QUIET}"/>'
        ]
        for score in (0, 25, 50, 75, 100):
            at = f'y="{self.y(score) + 4:.0f}" text-anchor="end"'
            parts.append(f'<text x="{self.left_px - 6:.0f}" {at}>{score}</text>')
        for tick in self.ticks:
            at = f'x="{self.x(tick):.0f}" y="{low + 16:.0f}" text-anchor="middle"'
            parts.append(f"<text {at}>{tick:g}</text>")
        middle = self.left_px + PANEL_PX / 2
        parts.append(f'<text x="{middle:.0f}" y="{low + 38:.0f}" text-anchor="middle">{escape(self.label)}</text>')
        return parts

    def point(self, name: str, at: tuple[float, float], score: dict[str, Any], color: str) -> list[str]:
        """A planner: its score with interval at compute `at` = (middle, high)."""
        x, x_high, y = self.x(at[0]), self.x(at[1]), self.y(score["mean"])
        low, high = (self.y(value) for value in score["ci95"])
        right = x > self.left_px + 0.7 * PANEL_PX
        anchor, shift = ("end", -8) if right else ("start", 8)
        line = f'stroke="{color}" stroke-opacity="0.5"'
        return [
            f'<line x1="{x:.1f}" y1="{low:.1f}" x2="{x:.1f}" y2="{high:.1f}" {line}/>',
            f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{x_high:.1f}" y2="{y:.1f}" {line}/>',
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{color}"/>',
            f'<text x="{x + shift:.1f}" y="{y - 6:.1f}" text-anchor="{anchor}" font-size="10">{escape(name)}</text>',
        ]


def frontier(result: dict[str, Any]) -> str:
    """SVG text of what `eval.planners` found: milliseconds on the left, imagined futures on the right."""
    spent: dict[str, tuple[float, float]] = {}
    futures: dict[str, tuple[float, float]] = {}
    for name, row in result["planners"].items():
        alone, driven = row.get("alone"), row.get("closed_loop")
        if alone:
            spent[name] = (alone["cpu_ms_p50"], alone["cpu_ms_p95"])
        if driven and driven["imagined_per_plan"]:
            mean = driven["imagined_per_plan"]["mean"]
            futures[name] = (mean, mean)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH_PX}" height="{HEIGHT_PX}" '
        f'viewBox="0 0 {WIDTH_PX} {HEIGHT_PX}" font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{LEFT_PX}" y="24" font-size="14">Driving score against compute: suite {escape(result["suite"])}, '
        f"{len(result['scenarios'])} scenarios, {result['seeds']} seed(s), 95 % intervals over scenarios</text>",
        f'<text x="{LEFT_PX}" y="44" fill="#555">{escape(_beside(result))}</text>',
    ]
    labels = ("CPU milliseconds per plan, median to 95th percentile", "imagined futures per plan")
    for number, (label, places) in enumerate(zip(labels, (spent, futures), strict=True)):
        panel = Panel(LEFT_PX + number * (PANEL_PX + GAP_PX), label, [v for pair in places.values() for v in pair])
        parts += panel.axes()
        for name, at in places.items():
            color = PRIVILEGED if name in result["privileged"] else INK
            parts += panel.point(name, at, result["planners"][name]["driving_score"], color)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _beside(result: dict[str, Any]) -> str:
    """Who has no place on the axes, with the score."""
    rest = [n for n, row in result["planners"].items() if not row.get("alone")]
    told = [f"{name} {result['planners'][name]['driving_score']['mean']:.1f}" for name in rest]
    return "without imagination, or privileged: " + ", ".join(told) if told else ""
