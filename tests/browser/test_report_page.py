"""The pages in a real browser: no complaint in the console, no request to anywhere, and they do what they show."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from drivesim.reports.page import data_tag, page
from drivesim.reports.replay_page import replay_report
from drivesim.reports.suite_page import About, suite_report
from drivesim.town.roads import RoadNetwork
from drivesim.town.towns import BUILTIN_TOWN, road_network
from tests.browser.headless_chromium import Page, find_chromium
from tests.browser.synthetic_drives import scorecard, suite_episodes
from tests.browser.synthetic_replay import replay_data

PLANNERS = ("latent", "behaviour-cloning", "constant-velocity", "expert")
ABOUT = About("demo", "2030-01-02 03:04:05", "0123456789ab", "x86_64, 2 cpus", "drivesim evaluate --suite demo")


@pytest.fixture(scope="module")
def network() -> RoadNetwork:
    return road_network(BUILTIN_TOWN)


@pytest.fixture(scope="module")
def suite_html(network: RoadNetwork) -> str:
    episodes = suite_episodes(network, 2, PLANNERS, seeds=2)
    return suite_report(scorecard(episodes), episodes, ABOUT, lambda town: network)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    binary = find_chromium()
    if binary is None:
        pytest.skip("no chromium or chrome here; apt-get install chromium")
    with Page(binary, tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.fixture
def tab(browser: Page) -> Page:
    browser.events.clear()
    return browser


def seek(tab: Page, time_s: float) -> None:
    """Drag the slider."""
    tab.run(f"document.querySelector('.track input').value = {time_s}")
    tab.run("document.querySelector('.track input').dispatchEvent(new Event('input'))")


def test_a_report_names_no_address(suite_html: str) -> None:
    assert not re.search(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//""", suite_html)
    assert "url(" not in suite_html.split("</style>")[0]
    assert "http" not in re.sub(r"http-equiv|http://www.w3.org/2000/svg", "", suite_html.split("</style>")[0])


def test_a_text_cannot_leave_its_data_block() -> None:
    tag = data_tag("x", {"text": "</script><script>alert(1)</script>"})
    assert tag.count("<") == 2
    with pytest.raises(ValueError):
        page("t", (), {"x": float("nan")})


def test_suite_page(suite_html: str, tab: Page, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text(suite_html, encoding="utf-8")
    tab.open(file.as_uri())
    tab.settle()
    text = tab.run("document.body.innerText")
    assert all(planner in text for planner in PLANNERS)
    assert tab.run("document.querySelectorAll('table.heat tbody tr').length") == 2
    assert tab.run("document.querySelectorAll('.tile').length") == len(PLANNERS)
    assert tab.run("document.documentElement.scrollWidth <= window.innerWidth")
    assert tab.complaints() == []
    assert tab.requests() == [file.as_uri()]


def test_scenario_page(suite_html: str, tab: Page, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text(suite_html, encoding="utf-8")
    tab.open(file.as_uri())
    tab.run("document.querySelector('table.heat .cell').click()")
    tab.wait_for("document.querySelector('.map canvas')")
    tab.settle()
    assert (
        tab.run(
            "new Set(document.querySelector('.map canvas').getContext('2d').getImageData(0, 0, 500, 300).data).size"
        )
        > 20
    )
    first = tab.run("document.querySelector('.cameras img').src")
    seek(tab, 15)
    tab.settle()
    assert tab.run("document.querySelector('.clock').textContent").startswith("15.0")
    assert tab.run("document.querySelector('.cameras img').src") != first
    assert tab.run("document.querySelector('.cameras img').naturalWidth") > 100
    tab.run("document.querySelector('.play').click()")
    tab.wait_for("parseFloat(document.querySelector('.clock').textContent) > 15.2")
    for planner in PLANNERS[1:]:
        tab.run(f"[...document.querySelectorAll('.tab')].find((t) => t.textContent.includes('{planner}')).click()")
        tab.wait_for(f"document.querySelector('.tab[aria-selected=true]').textContent.includes('{planner}')")
        tab.settle()
    assert tab.run("document.querySelectorAll('.chart canvas').length") == 6
    assert tab.complaints() == []
    assert tab.requests() == [file.as_uri()]


def test_report_without_a_map_or_pictures(network: RoadNetwork, tab: Page, tmp_path: Path) -> None:
    from dataclasses import replace

    episodes = [
        replace(e, snapshots=(), light_tick=e.light_tick[:0], light_state=e.light_state[:0])
        for e in suite_episodes(network, 1, ("expert",))
    ]
    file = tmp_path / "report.html"
    file.write_text(suite_report(scorecard(episodes), episodes, ABOUT, lambda town: None), encoding="utf-8")
    tab.open(file.as_uri())
    tab.run("document.querySelector('table.heat .cell').click()")
    tab.wait_for("document.querySelector('.map canvas')")
    tab.settle()
    assert tab.complaints() == []


@pytest.mark.parametrize("with_grids", [True, False])
def test_replay_page(network: RoadNetwork, tab: Page, tmp_path: Path, with_grids: bool) -> None:
    file = tmp_path / "replay.html"
    file.write_text(replay_report(replay_data(network, with_grids), network), encoding="utf-8")
    tab.open(file.as_uri())
    seek(tab, 12)
    tab.settle()
    text = tab.run("document.body.innerText")
    assert all(word in text for word in ("Surprise", "The latent", "Imagined and came", "What if"))
    assert tab.run("document.querySelectorAll('.forecast figure').length") == 4
    assert tab.complaints() == []
    assert tab.requests() == [file.as_uri()]
