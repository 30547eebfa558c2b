"""The figure of the planners study."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any

from eval.frontier import Panel, frontier


def a_row(score: float, ms: float | None, futures: float | None) -> dict[str, Any]:
    around = {"mean": score, "ci95": [score - 5.0, score + 5.0], "n": 3}
    alone = None if ms is None else {"cpu_ms_p50": ms, "cpu_ms_p95": 1.2 * ms}
    imagined = None if futures is None else {"mean": futures, "ci95": [futures, futures], "n": 9}
    return {"driving_score": around, "alone": alone, "closed_loop": {"imagined_per_plan": imagined}}


def test_every_planner_is_shown_once_where_it_belongs() -> None:
    rows = {"latent": a_row(60.0, 60.0, 40.0), "latent-cem": a_row(70.0, 90.0, 82.0), "a<b": a_row(10.0, 15.0, None)}
    result = {
        "suite": "dev", "scenarios": ["s"], "seeds": 3, "privileged": ["expert"],
        "planners": {**rows, "expert": a_row(100.0, None, None)},
    }  # fmt: skip
    figure = ET.fromstring(frontier(result))
    texts = ["".join(node.itertext()) for node in figure.iter() if node.tag.endswith("text")]
    assert [texts.count(name) for name in ("latent", "latent-cem", "a<b", "expert")] == [2, 2, 1, 0]
    assert any("expert 100.0" in text for text in texts)


def test_the_compute_axis_grows_to_the_right_and_the_score_upwards() -> None:
    panel = Panel(0.0, "ms", [12.0, 300.0])
    assert panel.ticks[0] <= 12.0 and panel.ticks[-1] >= 300.0
    assert panel.x(12.0) < panel.x(60.0) < panel.x(300.0) and panel.y(90.0) < panel.y(10.0)
    assert len(Panel(0.0, "ms", []).ticks) >= 2
