"""What the terminal shows: live progress of an evaluation, and its scorecard as a table."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from drivesim.datatypes import Estimate, Scorecard
from drivesim.town.towns import TownInfo

HEADLINES = (
    ("driving_score", "driving score", 1.0, 1), ("success_rate", "success %", 100.0, 0),
    ("route_completion", "route completion %", 1.0, 1), ("penalty", "penalty factor", 1.0, 2),
    ("collisions_per_km", "collisions / km", 1.0, 2), ("red_lights", "red lights", 1.0, 2),
    ("outside_lanes", "off lane %", 1.0, 1), ("plan_ms_p95", "plan p95 ms", 1.0, 0),
)  # fmt: skip


class EvaluationProgress:
    """A bar per planner with its running mean score."""

    def __init__(self, planners: list[str], episodes_each: int, console: Console) -> None:
        self.console = console
        self._scores: dict[str, list[float]] = {planner: [] for planner in planners}
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TextColumn("{task.fields[score]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("[dim]{task.fields[last]}"),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {
            planner: self._bars.add_task(planner, total=episodes_each, score="", last="") for planner in planners
        }

    def __enter__(self) -> EvaluationProgress:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def finished(self, planner: str, scenario: str, end: str, score: float | None) -> None:
        """One episode is done (driven now, or found from an earlier run)."""
        scores = self._scores[planner]
        scores.append(0.0 if score is None else score)
        task = self._tasks[planner]
        self._bars.update(task, advance=1, score=f"[bold]{sum(scores) / len(scores):5.1f}", last=f"{scenario}: {end}")
        if not self.console.is_terminal:
            self.console.print(f"{planner}  {scenario}  {end}  {0.0 if score is None else score:.1f}", highlight=False)


def _text(estimate: Estimate | None, factor: float, digits: int) -> str:
    if estimate is None:
        return "-"
    low, high = (value * factor for value in estimate.ci95)
    return f"[bold]{estimate.mean * factor:.{digits}f}[/bold] [dim]{low:.{digits}f}..{high:.{digits}f}[/dim]"


def scorecard_table(card: Scorecard) -> Table:
    """Measures down, planners across, each a mean with its 95 % interval."""
    seeds = len({outcome.seed for outcome in card.outcomes})
    scenarios = len({outcome.scenario_id for outcome in card.outcomes})
    table = Table(
        title=f"suite {card.suite}: {scenarios} scenarios, {seeds} seed(s), mean and 95 % interval",
        title_justify="left",
    )
    table.add_column("")
    for planner in card.planners:
        table.add_column(planner, justify="right")
    for name, title, factor, digits in HEADLINES:
        if any(name in measures for measures in card.planners.values()):
            table.add_row(title, *(_text(measures.get(name), factor, digits) for measures in card.planners.values()))
    return table


def towns_table(towns: list[TownInfo]) -> Table:
    """Name, source, lane kilometres and whether it is installed."""
    table = Table(title="towns", title_justify="left")
    for column in ("town", "source", "installed", "baked", "lane km"):
        table.add_column(column, justify="right" if column == "lane km" else "left")
    for town in towns:
        yes = ["yes" if flag else "no" for flag in (town.installed, town.baked)]
        table.add_row(town.name, town.source, *yes, "" if town.lane_km is None else f"{town.lane_km:.1f}")
    return table
