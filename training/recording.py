"""The drives that a recipe needs: recorded once, by seed, as states alone.

Beside the expert's and risky drivers' there may be practice: a planner, usually the one that ships, drives through the
same kinds of events and gets itself into what no other driver does, such as creeping towards somebody on foot. The
expert says at every tick what would have been right (DAgger: Ross et al. 2011).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

PRACTICE = "practice"  # the folder of a planner's drives among the logs
PRACTICE_SEED = 1000  # other routes and events than the drivers' of the same recipe


@dataclass(frozen=True)
class RecordingConfig:
    """Which drives to record for training."""

    towns: tuple[str, ...] = ("Town01", "Town03", "Town05", "Drivetown")
    drives: int = 320
    seconds: float = 30.0
    risky: float = 0.35
    walker_events: float = 0.6  # share of drives in which somebody steps out: rare things must be seen often
    workers: int = 2
    practice: int = 0  # drives by `planner`, in the same towns
    planner: str = "latent"


def ensure_logs(config: RecordingConfig, out: Path, seed: int, on_progress: Callable[[float], None]) -> list[Path]:
    """Record the drives that are not there yet; returns all logs, in order."""
    from drivesim.build import make_planner
    from drivesim.recording import RecordConfig, record

    wanted = RecordConfig(
        towns=config.towns,
        episodes=config.drives,
        seconds=config.seconds,
        period_s=0.5,
        images=False,
        risky_fraction=config.risky,
        walker_event_fraction=config.walker_events,
        seed=seed,
        workers=config.workers,
    )
    total = config.drives + config.practice
    logs = record(wanted, out, lambda done, _, __: on_progress(done / total))
    if config.practice:
        own = replace(wanted, episodes=config.practice, planner=config.planner, seed=seed + PRACTICE_SEED)
        logs += record(
            own, out / PRACTICE, lambda done, _, __: on_progress((config.drives + done) / total), make_planner
        )
    return logs


def logs_of(folder: Path) -> list[Path]:
    """The logs that a cache was made of, in its order: the drivers' drives, then those of practice."""
    return sorted(folder.glob("*.zarr")) + sorted((folder / PRACTICE).glob("*.zarr"))
