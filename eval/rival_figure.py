"""Table and figure of the rivals study: driving scores with intervals, and what probes read on held-out drives."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np

PROBES = ("speed_r2", "lead_gap_r2", "lateral_r2", "heading_r2", "red_light_auc", "walker_ahead_auc", "retrieval")
NAME_PX, BAR_PX, ROW_PX, TOP_PX = 190, 420, 26, 70
INK, QUIET, TAUGHT, BESIDE = "#1f77b4", "#999", "#ff7f0e", "#7f7f7f"


def seeds_mean(rows: list[dict[str, Any]], probe: str) -> str:
    """Mean over training seeds, and their range where there are several."""
    values = [row["probes"]["held_out"][probe] for row in rows if row["probes"]["held_out"].get(probe) is not None]
    if not values:
        return "-"
    width = f" ({min(values):.2f} to {max(values):.2f})" if len(values) > 1 else ""
    return f"{float(np.mean(values)):.2f}{width}"


def interval(row: dict[str, Any], name: str) -> str:
    """mean [low, high]; the mean alone where a single scenario leaves nothing to draw an interval from."""
    if name not in row:
        return "-"
    found = row[name]
    if found["ci95"][0] == found["ci95"][1]:
        return f"{found['mean']:.1f}"
    return f"{found['mean']:.1f} [{found['ci95'][0]:.1f}, {found['ci95'][1]:.1f}]"


def ranked(result: dict[str, Any]) -> list[str]:
    """Who drove, the best first; who was only trained after them."""
    driven = (result["closed_loop"] or {"rows": {}})["rows"]
    order = sorted(driven, key=lambda name: -driven[name].get("driving_score", {"mean": -1.0})["mean"])
    return [*order, *(name for name in result["rivals"] if name not in driven)]


def markdown(result: dict[str, Any]) -> str:
    """The table, whoever wins."""
    loop, sizes, trained = result["closed_loop"], result["sizes"], result["rivals"]
    driven = loop["rows"] if loop else {}
    lines = [
        f"Steps {sizes['steps'][0]} (encoder), {sizes['steps'][1]} (predictor), {sizes['steps'][2]} (heads); "
        f"{sizes['ticks'][0]} ticks to train on, {sizes['ticks'][1]} to probe; training seeds {len(result['seeds'])}.",
    ]
    if loop:
        lines[0] += (
            f" Suite {loop['suite']}: {len(loop['scenarios'])} scenarios, {loop['episodes']} drive(s) each; "
            f"{loop['missing']} missing."
        )
    head = ["rival", "targets", "driving score", "minus contrastive", "n", "success", "collisions/km", "s/step", "rank"]
    head += [name.replace("_", " ") for name in PROBES]
    lines += ["", f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for name in ranked(result):
        row, rows = driven.get(name, {}), trained.get(name, [])
        steps = [r["encoder"]["step_s"] for r in rows if r["encoder"]["step_s"]]
        ranks = [r["probes"]["effective_rank"] for r in rows if r["probes"]["effective_rank"] is not None]
        collapsed = sum(bool(r["collapse"]) for r in rows)
        cells = [
            name + (f" (collapsed in {collapsed} of {len(rows)})" if collapsed else ""),
            rows[0]["targets"] if rows else "", interval(row, "driving_score"), interval(row, "minus_contrastive"),
            str(row["driving_score"]["n"]) if "driving_score" in row else "-",
            f"{100 * row['success']['mean']:.0f} %" if "success" in row else "-", interval(row, "collisions_per_km"),
            f"{np.mean(steps):.2f}" if steps else "-", f"{np.mean(ranks):.0f}" if ranks else "-",
            *(seeds_mean(rows, probe) if rows else "-" for probe in PROBES),
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", *(f"Left out: {name}: {why}" for name, why in result["skipped"].items())]
    return "\n".join(lines) + "\n"


def figure(result: dict[str, Any]) -> str:
    """SVG text: a row a rival; its driving score, or where nobody drove, its probes' mean."""
    loop, names = result["closed_loop"], ranked(result)
    height = TOP_PX + ROW_PX * len(names) + 40
    width = NAME_PX + BAR_PX + 60
    title = (
        f"Driving score, suite {loop['suite']}, {len(result['seeds'])} training seed(s), 95 % intervals over scenarios"
        if loop else "Held-out drives: R² of speed, lead gap, lateral offset (clipped at 0), and their mean"
    )  # fmt: skip
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="12" y="22" font-size="13">{escape(title)}</text>',
        '<text x="12" y="42" fill="#555">blue: no pixel and no truth as a target; orange: pixels, truth or other '
        "labels; grey: not trained here</text>",
    ]
    for tick in range(0, 101, 25):
        x = NAME_PX + BAR_PX * tick / 100
        parts.append(f'<line x1="{x:.0f}" y1="{TOP_PX - 8}" x2="{x:.0f}" y2="{height - 34}" stroke="#eee"/>')
        label = f"{tick}" if loop else f"{tick / 100:g}"
        parts.append(f'<text x="{x:.0f}" y="{height - 16}" text-anchor="middle" fill="{QUIET}">{label}</text>')
    for place, name in enumerate(names):
        parts += row_of(result, name, TOP_PX + ROW_PX * place + 8)
    return "\n".join([*parts, "</svg>"]) + "\n"


def row_of(result: dict[str, Any], name: str, y: int) -> list[str]:
    """A point with its interval, or a point for each probe and their mean."""
    rows = result["rivals"].get(name, [])
    color = BESIDE if not rows else TAUGHT if rows[0]["targets"] != "none" else INK
    parts = [f'<text x="{NAME_PX - 10}" y="{y + 4}" text-anchor="end">{escape(name)}</text>']
    driven = (result["closed_loop"] or {"rows": {}})["rows"].get(name, {}).get("driving_score")
    if driven:
        x, low, high = (NAME_PX + BAR_PX * v / 100 for v in (driven["mean"], *driven["ci95"]))
        parts.append(f'<line x1="{low:.1f}" y1="{y}" x2="{high:.1f}" y2="{y}" stroke="{color}" stroke-width="2"/>')
        parts.append(f'<circle cx="{x:.1f}" cy="{y}" r="4" fill="{color}"/>')
        parts.append(f'<text x="{high + 8:.1f}" y="{y + 4}" font-size="10">{driven["mean"]:.1f}</text>')
    elif rows and not result["closed_loop"]:
        held = [row["probes"]["held_out"] for row in rows]
        values = [max(0.0, h[p]) for h in held for p in PROBES[:3] if h.get(p) is not None]
        for value in values:
            parts.append(f'<circle cx="{NAME_PX + BAR_PX * value:.1f}" cy="{y}" r="2.5" fill="none" stroke="{color}"/>')
        if values:
            parts.append(f'<circle cx="{NAME_PX + BAR_PX * np.mean(values):.1f}" cy="{y}" r="4" fill="{color}"/>')
    return parts
