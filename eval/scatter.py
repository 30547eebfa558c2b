"""The figure of the fidelity study: imagined against true score, one point a planner, as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

SIZE_PX, LEFT_PX, TOP_PX, BOTTOM_PX, RIGHT_PX = 640, 66, 84, 60, 24
WIDTH_PX = SIZE_PX + LEFT_PX + RIGHT_PX
HEIGHT_PX = SIZE_PX + TOP_PX + BOTTOM_PX
TICK = 10.0
FONT_PX, LETTER_PX = 11, 5.9
FAMILIES = (("expert", "#2563a8"), ("constant", "#6b7280"), ("latent-policy", "#c05621"), ("latent", "#b3261e"),
            ("behaviour", "#3f7d3a"), ("readout", "#7a4b9d"))  # fmt: skip
OTHER = "#222222"
RINGS_PX = (9.0, 16.0, 26.0, 38.0, 52.0, 68.0)


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels."""

    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: Box) -> float:
        """Shared area."""
        wide = min(self.right, other.right) - max(self.left, other.left)
        high = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(wide, 0.0) * max(high, 0.0)


@dataclass(frozen=True)
class Scale:
    """Scores between `low` and `high` on the figure's square."""

    low: float
    high: float

    def x(self, score: float) -> float:
        """Pixels from the left."""
        return LEFT_PX + SIZE_PX * (score - self.low) / (self.high - self.low)

    def y(self, score: float) -> float:
        """Pixels from the top."""
        return TOP_PX + SIZE_PX * (self.high - score) / (self.high - self.low)

    @staticmethod
    def around(values: Sequence[float]) -> Scale:
        """All values with some room, from tick to tick, within 0 and 100."""
        low = TICK * math.floor((min(values) - 2.0) / TICK)
        high = TICK * math.ceil((max(values) + 2.0) / TICK)
        return Scale(max(low, 0.0), min(max(high, low + TICK), 100.0))


def hue(name: str) -> str:
    """Colour of a planner's family."""
    return next((color for start, color in FAMILIES if name.startswith(start)), OTHER)


def _interval(result: dict[str, Any], name: str) -> str:
    value, interval = result[name], result[f"{name}_ci95"]
    if value is None:
        return "not to be had"
    return f"{value:.2f}" + (f" [{interval[0]:.2f}, {interval[1]:.2f}]" if interval else "")


def _line(x1: float, y1: float, x2: float, y2: float, color: str, extra: str = "") -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{color}" {extra}/>'


def _text(x: float, y: float, text: str, extra: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {extra}>{escape(text)}</text>'


def _axes(scale: Scale) -> list[str]:
    left, right, top, bottom = LEFT_PX, LEFT_PX + SIZE_PX, TOP_PX, TOP_PX + SIZE_PX
    parts, tick = [], scale.low
    while tick <= scale.high + 1e-6:
        x, y = scale.x(tick), scale.y(tick)
        parts += [_line(x, top, x, bottom, "#eee"), _line(left, y, right, y, "#eee"),
                  _text(x, bottom + 18, f"{tick:g}", 'text-anchor="middle"'),
                  _text(left - 8, y + 4, f"{tick:g}", 'text-anchor="end"')]  # fmt: skip
        tick += TICK
    middle = TOP_PX + SIZE_PX / 2
    return [
        *parts,
        _line(left, bottom, right, top, "#bbb", 'stroke-dasharray="5 4"'),
        f'<rect x="{left}" y="{top}" width="{SIZE_PX}" height="{SIZE_PX}" fill="none" stroke="#999"/>',
        _text(left + SIZE_PX / 2, bottom + 42, "driving score in the latent world", 'text-anchor="middle"'),
        _text(20, middle, "true driving score, closed loop in the embedded town",
              f'text-anchor="middle" transform="rotate(-90 20 {middle:.0f})"'),
    ]  # fmt: skip


def _label(x: float, y: float, name: str, angle: float, ring: float) -> tuple[Box, float, float]:
    """Box of a name beside a point, and where its text begins."""
    wide, high = LETTER_PX * len(name), FONT_PX + 1.0
    cx, cy = x + math.cos(angle) * ring, y + math.sin(angle) * ring
    left = cx if math.cos(angle) > 0.3 else cx - wide if math.cos(angle) < -0.3 else cx - 0.5 * wide
    return Box(left, cy - 0.5 * high, left + wide, cy + 0.5 * high), left, cy + 0.35 * FONT_PX


def placed(points: Sequence[tuple[str, float, float]]) -> list[tuple[float, float, float, Box]]:
    """Where each name goes (x, y, ring, box): the nearest place that hides no point, bar or other name."""
    taken = [Box(x - 6, y - 6, x + 6, y + 6) for _, x, y in points]
    frame = Box(LEFT_PX + 2, TOP_PX + 2, LEFT_PX + SIZE_PX - 2, TOP_PX + SIZE_PX - 2)
    found = []
    for name, x, y in points:
        best: tuple[float, float, float, float, Box] | None = None
        for ring in RINGS_PX:
            for k in range(16):
                box, left, base = _label(x, y, name, math.pi * k / 8, ring)
                outside = (box.right - box.left) * (box.bottom - box.top) - box.overlap(frame)
                cost = 8.0 * outside + sum(box.overlap(other) for other in taken) + 0.8 * ring + 0.2 * (k % 8 != 0)
                if best is None or cost < best[0]:
                    best = (cost, left, base, ring, box)
        assert best is not None
        taken.append(best[4])
        found.append(best[1:])
    return found


def _points(planners: dict[str, dict[str, Any]], scale: Scale) -> list[str]:
    """One a planner over all starts, with 95 % intervals over starts."""
    places = [(name, scale.x(row["imagined"]), scale.y(row["true"])) for name, row in planners.items()]
    bars, dots, names = [], [], []
    for name, x, y in places:
        row, color = planners[name], hue(name)
        if row.get("true_ci95"):
            low, high = (scale.y(min(max(v, scale.low), scale.high)) for v in row["true_ci95"])
            bars.append(_line(x, low, x, high, color, 'opacity="0.22" stroke-width="2"'))
        if row.get("imagined_ci95"):
            low, high = (scale.x(min(max(v, scale.low), scale.high)) for v in row["imagined_ci95"])
            bars.append(_line(low, y, high, y, color, 'opacity="0.22" stroke-width="2"'))
        fill, edge = ("white", color) if row["told"] else (color, "white")
        dots.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{fill}" stroke="{edge}" stroke-width="1.5"/>')
    for (name, x, y), (left, base, ring, box) in zip(places, placed(places), strict=True):
        if ring > RINGS_PX[1]:
            near = min(max(x, box.left), box.right), min(max(y, box.top), box.bottom)
            names.append(_line(x, y, *near, hue(name), 'opacity="0.5"'))
        halo = 'paint-order="stroke" stroke="white" stroke-width="3"'
        names.append(_text(left, base, name, f'font-size="{FONT_PX}" fill="{hue(name)}" {halo}'))
    return [*bars, *dots, *names]


def scatter(result: dict[str, Any]) -> str:
    """SVG text of what `eval.fidelity` found."""
    headline, speed, planners = result["headline"], result["speed"], result["planners"]
    agreed, control, everybody = headline["imagined"], headline["control"], result["with_told"]["imagined"]
    scale = Scale.around([row[key] for row in planners.values() for key in ("imagined", "true")])
    title = (
        f"R² {_interval(agreed, 'r2')}, rank correlation {_interval(agreed, 'rank_correlation')}, "
        f"{agreed['planners']} planners"
    )
    hollow = f"hollow: told the truth, not counted (with them R² {_interval(everybody, 'r2')})"
    about = (
        f"{result['starts']} starts of {result['seconds']:g} s in {', '.join(result['towns'])}; "
        f"{speed['times_faster_than_rendered']:.0f} times faster than the rendered town"
    )
    below = f"{hollow}; control that imagines nothing: R² {_interval(control, 'r2')}"
    middle = LEFT_PX + SIZE_PX / 2
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH_PX}" height="{HEIGHT_PX}" '
        f'viewBox="0 0 {WIDTH_PX} {HEIGHT_PX}" font-family="system-ui, sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        _text(middle, 26, title, 'text-anchor="middle" font-size="15" font-weight="600"'),
        _text(middle, 48, about, 'text-anchor="middle" fill="#555"'),
        _text(middle, 68, below, 'text-anchor="middle" fill="#555"'),
        *_axes(scale),
        *_points(planners, scale),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"
