"""Suites and the places of their episodes on disk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from drivesim.config import ConfigError, load_toml, nearest
from drivesim.datatypes import Scenario
from drivesim.worlds.scenario_files import data_folder


@dataclass(frozen=True)
class Suite:
    """A suite file: an id and the ids of its scenarios."""

    id: str
    scenarios: tuple[str, ...]
    description: str = ""


@dataclass(frozen=True)
class Job:
    """One episode to drive."""

    scenario: Scenario
    planner: str
    seed: int

    def path(self, out: Path) -> Path:
        """Its episode's file."""
        return out / "episodes" / self.scenario.id / self.planner.replace(":", ".") / f"{self.seed}.npz"

    @property
    def key(self) -> tuple[str, str, int]:
        """What makes it unique in the suite."""
        return self.scenario.id, self.planner, self.seed


def suite_files() -> dict[str, Path]:
    """Suite id -> file of all shipped suites."""
    return {path.stem: path for path in sorted(data_folder("eval/suites").glob("*.toml"))}


def load_suite(name: str | Path) -> Suite:
    """A suite by id or by file.

    Raises:
        ConfigError: no such suite.
    """
    path = Path(name)
    if path.suffix != ".toml":
        files = suite_files()
        if str(name) not in files:
            raise ConfigError(f"unknown suite {str(name)!r}: {nearest(str(name), files)}, or a path to a .toml file")
        path = files[str(name)]
    suite = load_toml(Suite, path)
    if not suite.scenarios or len(set(suite.scenarios)) != len(suite.scenarios):
        raise ConfigError(f"{path}: scenarios must be there, each once")
    return suite


def episodes_of(out: Path) -> Iterator[Path]:
    """The episode files of a suite's folder, in order of scenario, planner, seed."""
    found = (out / "episodes").glob("*/*/*.npz")
    yield from sorted(found, key=lambda path: (*path.parts[-3:-1], len(path.stem), path.stem))
