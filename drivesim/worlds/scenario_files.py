"""Scenario files: where they are, how they are read, what must be right in them."""

from __future__ import annotations

from pathlib import Path

from drivesim.config import ConfigError, load_toml, nearest
from drivesim.datatypes import Scenario
from drivesim.town.towns import UnknownTown, canonical_name
from drivesim.worlds.behaviors import parameters_of
from drivesim.worlds.variation import weather_of


def data_folder(name: str) -> Path:
    """`scenarios` or `eval/suites`: beside the package in a checkout, inside it in a wheel."""
    package = Path(__file__).parent.parent
    inside = package / "_data" / name
    return inside if inside.is_dir() else package.parent / name


def scenario_files() -> dict[str, Path]:
    """Scenario id -> file of all shipped scenarios."""
    return {path.stem: path for path in sorted(data_folder("scenarios").glob("*/*.toml"))}


def load_scenario(name: str | Path) -> Scenario:
    """A scenario by id or by file.

    Raises:
        ConfigError: no such scenario, or one that cannot be used.
    """
    path = Path(name)
    if path.suffix != ".toml":
        files = scenario_files()
        if str(name) not in files:
            raise ConfigError(f"unknown scenario {str(name)!r}: {nearest(str(name), files)}, or a path to a .toml file")
        path = files[str(name)]
    scenario = load_toml(Scenario, path)
    check_scenario(scenario, str(path))
    return scenario


def check_scenario(scenario: Scenario, where: str) -> None:
    """Raise ConfigError unless town, weather, route, behaviours and parameters are known."""
    try:
        canonical_name(scenario.town)
        weather_of(scenario.weather)
        for spec in scenario.actors:
            parameters_of(spec)
    except (ConfigError, UnknownTown) as error:
        raise ConfigError(f"{where}: {error}") from error
    if len(scenario.route) < 2:
        raise ConfigError(f"{where}: route needs at least a start and a goal")
    if scenario.time_limit_s <= 0.0 or scenario.dt_s <= 0.0:
        raise ConfigError(f"{where}: time_limit_s and dt_s must be positive")
