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
    checkpoint: str = ""  # its weights: a name in drivesim/weights, or a file; "" for those that ship


def ensure_logs(config: RecordingConfig, out: Path, seed: int, on_progress: Callable[[float], None]) -> list[Path]:
    """Record the drives that are not there yet; returns all logs, in order.

    Raises:
        ConfigError: no such planner for practice.
        drivesim.models.CheckpointError: its weights cannot be read.
    """
    from drivesim.build import make_planner
    from drivesim.models import named_weights
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
    checkpoint = named_weights(config.checkpoint) if config.checkpoint else None
    if config.practice:
        make_planner(config.planner, checkpoint)  # who cannot be made is told of before hours of recording
    total = config.drives + config.practice
    logs = record(wanted, out, lambda done, _, __: on_progress(done / total))
    if config.practice:
        own = replace(
            wanted, episodes=config.practice, planner=config.planner, checkpoint=str(checkpoint or ""),
            seed=seed + PRACTICE_SEED,
        )  # fmt: skip
        logs += record(
            own, out / PRACTICE, lambda done, _, __: on_progress((config.drives + done) / total), make_planner
        )
    return logs


def logs_of(folder: Path) -> list[Path]:
    """The logs that a cache was made of, in its order: the drivers' drives, then those of practice."""
    return sorted(folder.glob("*.zarr")) + sorted((folder / PRACTICE).glob("*.zarr"))
