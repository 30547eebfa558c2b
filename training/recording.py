"""The drives that a recipe needs: recorded once, by seed, as states alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RecordingConfig:
    """Which drives to record for training."""

    towns: tuple[str, ...] = ("Town01", "Town03", "Town05", "Drivetown")
    drives: int = 320
    seconds: float = 30.0
    risky: float = 0.35
    walker_events: float = 0.6  # share of drives in which somebody steps out: rare things must be seen often
    workers: int = 2


def ensure_logs(config: RecordingConfig, out: Path, seed: int, on_progress: Callable[[float], None]) -> list[Path]:
    """Record the drives that are not there yet; returns all logs, in order."""
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
    return record(wanted, out, lambda done, total, _: on_progress(done / max(1, total)))
