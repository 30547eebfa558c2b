"""A study's figure: one self-contained HTML page of interval charts (SVG), with nothing to load."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

WIDTH_PX, LABEL_PX, TEXT_PX, ROW_PX = 860, 250, 190, 26
HUES = ("#2563a8", "#c05621", "#3f7d3a", "#7a4b9d", "#8a6d00")
STYLE = (
    "body{font:14px system-ui,sans-serif;max-width:900px;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}"
    "h1{font-size:1.4rem}h2{font-size:1.05rem;margin:1.6rem 0 .3rem}p{margin:.2rem 0;color:#555}"
    "text{font:12px system-ui,sans-serif;fill:#333}"
)


@dataclass(frozen=True)
class Bar:
    """One row of a chart: what `eval.bootstrap.over_drives` says."""

    label: str
    measured: dict[str, Any]
    hue: int = 0


@dataclass(frozen=True)
class Chart:
    """Rows on one axis; `goal` is drawn as a dashed line."""

    title: str
    about: str
    bars: Sequence[Bar]
    low: float = 0.0
    high: float = 1.0
    goal: float | None = None


def _x(chart: Chart, value: float) -> float:
    share = (min(max(value, chart.low), chart.high) - chart.low) / (chart.high - chart.low)
    return LABEL_PX + share * (WIDTH_PX - LABEL_PX - TEXT_PX)


def told(measured: dict[str, Any]) -> str:
    """A figure in words: value, interval, n."""
    value, interval = measured["value"], measured["ci95"]
    if value is None:
        return f"not to be had (n {measured['n']})"
    text = f"{value:.2f}" + (f" [{interval[0]:.2f}, {interval[1]:.2f}]" if interval else "")
    return f"{text} n {measured['n']}"


def _line(x: float, top: float, bottom: float, color: str, dashed: bool = False) -> str:
    dash = ' stroke-dasharray="4 3"' if dashed else ""
    return f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}" stroke="{color}"{dash}/>'


def draw(chart: Chart) -> str:
    """One chart as SVG."""
    height = ROW_PX * len(chart.bars) + 34
    parts = [f'<svg viewBox="0 0 {WIDTH_PX} {height}" width="{WIDTH_PX}" role="img">']
    for k in range(5):
        value = chart.low + k * (chart.high - chart.low) / 4
        parts.append(_line(_x(chart, value), 6, height - 24, "#ddd"))
        parts.append(f'<text x="{_x(chart, value):.1f}" y="{height - 8}" text-anchor="middle">{value:g}</text>')
    if chart.goal is not None:
        parts.append(_line(_x(chart, chart.goal), 6, height - 24, "#333", dashed=True))
    for row, bar in enumerate(chart.bars):
        y, hue = 6 + ROW_PX * (row + 0.5), HUES[bar.hue % len(HUES)]
        parts.append(f'<text x="{LABEL_PX - 8}" y="{y + 4:.1f}" text-anchor="end">{escape(bar.label)}</text>')
        if (interval := bar.measured["ci95"]) is not None:
            low, high = (_x(chart, value) for value in interval)
            parts.append(
                f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{y}" y2="{y}" stroke="{hue}" stroke-width="5" opacity=".4"/>'
            )
        if bar.measured["value"] is not None:
            parts.append(f'<circle cx="{_x(chart, bar.measured["value"]):.1f}" cy="{y}" r="4.5" fill="{hue}"/>')
        parts.append(f'<text x="{WIDTH_PX - TEXT_PX + 10}" y="{y + 4:.1f}">{escape(told(bar.measured))}</text>')
    return "".join([*parts, "</svg>"])


def figure(title: str, about: str, charts: Sequence[Chart]) -> str:
    """The page: charts one under the other, each with its sentence."""
    body = "".join(
        f"<h2>{escape(chart.title)}</h2><p>{escape(chart.about)}</p>{draw(chart)}" for chart in charts if chart.bars
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style></head><body><h1>{escape(title)}</h1><p>{escape(about)}</p>{body}</body></html>\n"
    )
