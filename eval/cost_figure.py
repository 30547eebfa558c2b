"""The figure of the cost study: milliseconds per plan on a logarithmic axis, one row a planner, as SVG."""

from __future__ import annotations

import math
from html import escape
from typing import Any

WIDTH_PX, ROW_PX, TOP_PX, LEFT_PX, RIGHT_PX = 980, 30, 76, 210, 250
OURS, THEIRS, QUIET = "#1f77b4", "#d62728", "#999"


class LogAxis:
    """Milliseconds to the right, a decade at a time."""

    def __init__(self, values: list[float]) -> None:
        positive = [value for value in values if value > 0.0] or [1.0]
        self.low = math.floor(math.log10(min(positive)))
        self.high = max(math.ceil(math.log10(max(positive))), self.low + 1)

    def x(self, value: float) -> float:
        """Pixels."""
        share = (math.log10(max(value, 10.0**self.low)) - self.low) / (self.high - self.low)
        return LEFT_PX + share * (WIDTH_PX - LEFT_PX - RIGHT_PX)


def row(axis: LogAxis, y: float, name: str, spent: dict[str, Any]) -> list[str]:
    """One planner: a bar from the clock's median to its 95th percentile, a ring at the processor's median, words."""
    color = THEIRS if name.startswith("lewm") else OURS
    wall, cpu = spent["wall_ms"], spent["cpu_ms"]
    low, high = axis.x(wall["p50"]), axis.x(wall["p95"])
    words = f"{wall['p50']:,.0f} ms ({cpu['p50']:,.0f}), {spent['candidates']:.0f} candidates, n {spent['plans']}"
    return [
        f'<text x="{LEFT_PX - 10}" y="{y + 4:.1f}" text-anchor="end">{escape(name)}</text>',
        f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{y}" y2="{y}" stroke="{color}" stroke-width="6" opacity="0.4"/>',
        f'<circle cx="{low:.1f}" cy="{y}" r="5" fill="{color}"/>',
        f'<circle cx="{axis.x(cpu["p50"]):.1f}" cy="{y}" r="5" fill="none" stroke="{color}" stroke-width="1.5"/>',
        f'<text x="{WIDTH_PX - RIGHT_PX + 14}" y="{y + 4:.1f}">{escape(words)}</text>',
    ]


def figure(result: dict[str, Any]) -> str:
    """SVG text of what `eval.cost` found."""
    rows = result["planners"]
    goal = None if result["goals"] is None else float(result["goals"]["plan_ms_p95"]["goal"])
    values = [spent[clock][key] for spent in rows.values() for clock in ("wall_ms", "cpu_ms") for key in ("p50", "p95")]
    axis, bottom = LogAxis(values + ([] if goal is None else [goal])), TOP_PX + ROW_PX * len(rows)
    machine = result["machine"]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH_PX}" height="{bottom + 50}" '
        f'viewBox="0 0 {WIDTH_PX} {bottom + 50}" font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="16" y="24" font-size="14">One plan with {result["cameras"]} cameras, against LeWM\'s planner with '
        f"one: {machine['threads']} thread(s), {escape(machine['processor'])}</text>",
        '<text x="16" y="44" fill="#555">dot: median by the clock, bar: to its 95th percentile, ring: median of '
        "processor time; planners took turns in one run</text>",
    ]
    for decade in range(axis.low, axis.high + 1):
        x = axis.x(10.0**decade)
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP_PX - 8}" y2="{bottom}" stroke="#ddd"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{10**decade:,}</text>')
    if goal is not None:
        x = axis.x(goal)
        parts.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP_PX - 8}" y2="{bottom}" stroke="{QUIET}" stroke-dasharray="4 3"/>'
        )
    for number, (name, spent) in enumerate(rows.items()):
        parts += row(axis, TOP_PX + ROW_PX * (number + 0.5), name, spent)
    legend = "milliseconds per plan (in brackets: of processor time); dashed: the goal for the 95th percentile"
    parts.append(f'<text x="{LEFT_PX}" y="{bottom + 40}">{legend}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"
