"""The figure of the fidelity study: imagined against true score, one point a planner, as SVG."""

from __future__ import annotations

from html import escape
from typing import Any

SIZE_PX, MARGIN_PX = 560, 64


def _place(score: float, *, upwards: bool = False) -> float:
    """Pixels of a score of 0 to 100 on either axis."""
    span = SIZE_PX - 2 * MARGIN_PX
    share = min(max(score / 100.0, 0.0), 1.0)
    return MARGIN_PX + (1.0 - share if upwards else share) * span


def _interval(result: dict[str, Any], name: str) -> str:
    value, interval = result[name], result[f"{name}_ci95"]
    if value is None:
        return "not to be had"
    return f"{value:.2f}" + (f" [{interval[0]:.2f}, {interval[1]:.2f}]" if interval else "")


def _axes() -> list[str]:
    low, high = _place(0.0), _place(100.0)
    parts = [
        f'<rect x="{low:.0f}" y="{_place(100.0, upwards=True):.0f}" width="{high - low:.0f}" '
        f'height="{high - low:.0f}" fill="none" stroke="#999"/>',
        f'<line x1="{low:.0f}" y1="{_place(0.0, upwards=True):.0f}" x2="{high:.0f}" '
        f'y2="{_place(100.0, upwards=True):.0f}" stroke="#ccc" stroke-dasharray="4 4"/>',
    ]
    for tick in (0, 25, 50, 75, 100):
        x, y = _place(tick), _place(tick, upwards=True)
        parts.append(f'<text x="{x:.0f}" y="{SIZE_PX - MARGIN_PX + 18}" text-anchor="middle">{tick}</text>')
        parts.append(f'<text x="{MARGIN_PX - 8}" y="{y + 4:.0f}" text-anchor="end">{tick}</text>')
    middle = SIZE_PX / 2
    parts.append(f'<text x="{middle:.0f}" y="{SIZE_PX - 22}" text-anchor="middle">score in imagination</text>')
    parts.append(
        f'<text x="18" y="{middle:.0f}" text-anchor="middle" transform="rotate(-90 18 {middle:.0f})">'
        "true score, embedded town</text>"
    )
    return parts


def _points(planners: dict[str, dict[str, Any]]) -> list[str]:
    """Filled where imagination dares to score, hollow (over all starts) where it abstains throughout."""
    parts = []
    for name, row in planners.items():
        dares = row["imagined"] is not None
        x = _place(row["imagined"] if dares else row["imagined_all"])
        y = _place(row["true"] if dares else row["true_all"], upwards=True)
        fill = "#1f77b4" if dares else "white"
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{fill}" stroke="#1f77b4"/>')
        left = x > SIZE_PX - 2.2 * MARGIN_PX
        anchor, shift = ("end", -7) if left else ("start", 7)
        parts.append(
            f'<text x="{x + shift:.1f}" y="{y + 4:.1f}" text-anchor="{anchor}" font-size="10">{escape(name)}</text>'
        )
    return parts


def scatter(result: dict[str, Any]) -> str:
    """SVG text of what `eval.fidelity` found."""
    trusted, speed = result["trusted"], result["speed"]
    title = (
        f"R² {_interval(trusted, 'r2')}, rank correlation {_interval(trusted, 'rank_correlation')}, "
        f"{trusted['planners']} planners"
    )
    control = result["control_without_imagination"]["trusted"]
    faster = speed["times_faster_than_rendered"]
    below = (
        f"{result['starts']} starts, {result['seconds']:g} s each; {faster:.0f} times faster; "
        f"without imagination R² {_interval(control, 'r2')}"
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{SIZE_PX}" height="{SIZE_PX}" '
        f'viewBox="0 0 {SIZE_PX} {SIZE_PX}" font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{SIZE_PX / 2:.0f}" y="24" text-anchor="middle" font-size="13">{escape(title)}</text>',
        f'<text x="{SIZE_PX / 2:.0f}" y="44" text-anchor="middle" fill="#555">{escape(below)}</text>',
        *_axes(),
        *_points(result["planners"]),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"
