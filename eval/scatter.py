"""The figure of the fidelity study: imagined against true score, one point a planner, as SVG.

On the left all planners, on the right the crowd among them, larger.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

SIZE_PX, LEFT_PX, TOP_PX, BOTTOM_PX, GAP_PX, RIGHT_PX = 500, 62, 112, 56, 56, 20
WIDTH_PX = LEFT_PX + 2 * SIZE_PX + GAP_PX + RIGHT_PX
HEIGHT_PX = TOP_PX + SIZE_PX + BOTTOM_PX
FONT_PX, LETTER_PX = 11, 5.9
CROWD = 0.8  # share of the planners that the right half shows
FAMILIES = (("expert", "#2563a8"), ("constant", "#6b7280"), ("latent-policy", "#c05621"), ("latent", "#b3261e"),
            ("behaviour", "#3f7d3a"), ("readout", "#7a4b9d"))  # fmt: skip
OTHER = "#222222"
RINGS_PX = (9.0, 16.0, 26.0, 38.0, 52.0, 68.0, 86.0)
Point = tuple[str, float, float]


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
    """A square of the figure: `span` scores from `x0` to the right and from `y0` up, its left edge at `left_px`."""

    left_px: float
    x0: float
    y0: float
    span: float

    def x(self, score: float) -> float:
        """Pixels from the left."""
        return self.left_px + SIZE_PX * (score - self.x0) / self.span

    def y(self, score: float) -> float:
        """Pixels from the top."""
        return TOP_PX + SIZE_PX * (1.0 - (score - self.y0) / self.span)

    def holds(self, x: float, y: float) -> bool:
        """Whether a point lies in it."""
        return 0.0 <= x - self.x0 <= self.span and 0.0 <= y - self.y0 <= self.span

    @property
    def frame(self) -> Box:
        """Its edges."""
        return Box(self.left_px, TOP_PX, self.left_px + SIZE_PX, TOP_PX + SIZE_PX)


def hue(name: str) -> str:
    """Colour of a planner's family."""
    return next((color for start, color in FAMILIES if name.startswith(start)), OTHER)


def whole(points: Sequence[Point]) -> Scale:
    """All points, from ten to ten."""
    values = [value for _, *place in points for value in place]
    low, high = 10.0 * math.floor((min(values) - 2.0) / 10.0), 10.0 * math.ceil((max(values) + 2.0) / 10.0)
    return Scale(LEFT_PX, max(low, 0.0), max(low, 0.0), min(high, 100.0) - max(low, 0.0))


def crowd(points: Sequence[Point]) -> Scale:
    """The smallest square with most of the points, and some room around them."""
    x, y = np.array([p[1] for p in points]), np.array([p[2] for p in points])
    wanted, best = math.ceil(CROWD * len(points)), (math.inf, 0.0, 0.0)
    for left in x:
        for low in y:
            sides = np.sort(np.maximum(x - left, y - low)[(x >= left) & (y >= low)])
            if len(sides) >= wanted:
                best = min(best, (float(sides[wanted - 1]), float(left), float(low)))
    side, left, low = best
    room = 0.09 * side + 1.0
    return Scale(LEFT_PX + SIZE_PX + GAP_PX, left - room, low - room, side + 2.0 * room)


def _interval(result: dict[str, Any], name: str) -> str:
    value, interval = result[name], result[f"{name}_ci95"]
    if value is None:
        return "not to be had"
    return f"{value:.2f}" + (f" [{interval[0]:.2f}, {interval[1]:.2f}]" if interval else "")


def _line(x1: float, y1: float, x2: float, y2: float, color: str, extra: str = "") -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{color}" {extra}/>'


def _text(x: float, y: float, text: str, extra: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {extra}>{escape(text)}</text>'


def _rectangle(box: Box, color: str, extra: str = "") -> str:
    return (
        f'<rect x="{box.left:.1f}" y="{box.top:.1f}" width="{box.right - box.left:.1f}" '
        f'height="{box.bottom - box.top:.1f}" fill="none" stroke="{color}" {extra}/>'
    )


def _axes(scale: Scale) -> list[str]:
    frame, parts = scale.frame, []
    step = next(step for step in (1.0, 2.0, 5.0, 10.0, 20.0) if scale.span / step <= 10.0)
    for first, across in ((scale.x0, False), (scale.y0, True)):
        tick = step * math.ceil(first / step)
        while tick <= first + scale.span + 1e-6:
            if across:
                y = scale.y(tick)
                parts += [_line(frame.left, y, frame.right, y, "#eee"),
                          _text(frame.left - 7, y + 4, f"{tick:g}", 'text-anchor="end"')]  # fmt: skip
            else:
                x = scale.x(tick)
                parts += [_line(x, frame.top, x, frame.bottom, "#eee"),
                          _text(x, frame.bottom + 17, f"{tick:g}", 'text-anchor="middle"')]  # fmt: skip
            tick += step
    low, high = max(scale.x0, scale.y0), min(scale.x0, scale.y0) + scale.span
    if high > low:
        same = (scale.x(low), scale.y(low), scale.x(high), scale.y(high))
        parts.append(_line(*same, "#999", 'stroke-dasharray="5 4"'))
    middle = 0.5 * (frame.left + frame.right)
    return [*parts, _rectangle(frame, "#999"),
            _text(middle, frame.bottom + 40, "driving score in the latent world", 'text-anchor="middle"')]  # fmt: skip


def _label(x: float, y: float, name: str, angle: float, ring: float) -> tuple[Box, float, float]:
    """Box of a name beside a point, and where its text begins."""
    wide, high = LETTER_PX * len(name), FONT_PX + 1.0
    cx, cy = x + math.cos(angle) * ring, y + math.sin(angle) * ring
    left = cx if math.cos(angle) > 0.3 else cx - wide if math.cos(angle) < -0.3 else cx - 0.5 * wide
    return Box(left, cy - 0.5 * high, left + wide, cy + 0.5 * high), left, cy + 0.35 * FONT_PX


def placed(points: Sequence[Point], frame: Box) -> list[tuple[float, float, float, Box]]:
    """Where each name goes (x, y, ring, box), given points in pixels: the nearest place that hides nothing."""
    taken = [Box(x - 6, y - 6, x + 6, y + 6) for _, x, y in points]
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


def _dot(x: float, y: float, color: str, told: bool, size: float) -> str:
    fill, edge = ("white", color) if told else (color, "white")
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size}" fill="{fill}" stroke="{edge}" stroke-width="1.5"/>'


def _panel(scale: Scale, points: Sequence[Point], told: set[str], named: Sequence[str], size: float) -> list[str]:
    """Axes, points, and the names of some of them."""
    inside = [(name, scale.x(x), scale.y(y)) for name, x, y in points if scale.holds(x, y)]
    parts = _axes(scale) + [_dot(x, y, hue(name), name in told, size) for name, x, y in inside]
    frame, labelled = scale.frame, [point for point in inside if point[0] in named]
    room = Box(frame.left + 3, frame.top + 3, frame.right - 3, frame.bottom - 3)
    for (name, x, y), (left, base, ring, box) in zip(labelled, placed(labelled, room), strict=True):
        if ring > RINGS_PX[1]:
            near = min(max(x, box.left), box.right), min(max(y, box.top), box.bottom)
            parts.append(_line(x, y, *near, hue(name), 'opacity="0.5"'))
        halo = 'paint-order="stroke" stroke="white" stroke-width="3"'
        parts.append(_text(left, base, name, f'font-size="{FONT_PX}" fill="{hue(name)}" {halo}'))
    return parts


def _heading(result: dict[str, Any]) -> list[str]:
    headline, everybody, speed = result["headline"], result["with_told"]["imagined"], result["speed"]
    agreed, control, moving = headline["imagined"], headline["control"], result["headline_moving"]["imagined"]
    lines = (
        f"R² {_interval(agreed, 'r2')}, rank correlation {_interval(agreed, 'rank_correlation')}, "
        f"{agreed['planners']} planners, {result['starts']} starts",
        f"drives of {result['seconds']:g} s from logged moments in {' and '.join(result['towns'])}; imagined "
        f"{speed['times_faster_than_rendered']:.0f} times faster than the rendered town, "
        f"{speed['times_faster_than_rendered_through_carla']:.0f} times faster than through the carla client",
        f"without the planner that stands: R² {_interval(moving, 'r2')}; control that imagines nothing: "
        f"R² {_interval(control, 'r2')}, rank correlation {_interval(control, 'rank_correlation')}",
        f"hollow: planners that are told the truth, not counted; with them R² {_interval(everybody, 'r2')}, "
        f"rank correlation {_interval(everybody, 'rank_correlation')}",
    )
    middle, parts = 0.5 * WIDTH_PX, []
    for row, line in enumerate(lines):
        look = 'font-size="16" font-weight="600"' if row == 0 else 'fill="#555"'
        parts.append(_text(middle, 26 + 21 * row, line, f'text-anchor="middle" {look}'))
    return parts


def scatter(result: dict[str, Any]) -> str:
    """SVG text of what `eval.fidelity` found."""
    planners = result["planners"]
    points = [(name, float(row["imagined"]), float(row["true"])) for name, row in planners.items()]
    told = {name for name, row in planners.items() if row["told"]}
    left, right = whole(points), crowd(points)
    close = [name for name, x, y in points if right.holds(x, y)]
    lens = Box(left.x(right.x0), left.y(right.y0 + right.span), left.x(right.x0 + right.span), left.y(right.y0))
    middle = TOP_PX + SIZE_PX / 2
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH_PX}" height="{HEIGHT_PX}" '
        f'viewBox="0 0 {WIDTH_PX} {HEIGHT_PX}" font-family="system-ui, sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        *_heading(result),
        _text(18, middle, "true driving score, closed loop in the embedded town",
              f'text-anchor="middle" transform="rotate(-90 18 {middle:.0f})"'),
        *_panel(left, points, told, [name for name in planners if name not in close], 3.5),
        _rectangle(lens, "#555", 'stroke-dasharray="3 3"'),
        *_panel(right, points, told, close, 5.0),
        "</svg>",
    ]  # fmt: skip
    return "\n".join(parts) + "\n"
