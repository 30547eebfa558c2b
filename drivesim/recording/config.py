"""What to record."""

from __future__ import annotations

from dataclasses import dataclass

from drivesim.config import ConfigError, nearest
from drivesim.town.towns import canonical_name
from drivesim.town.weather import PRESETS

# Hard rain, dust and fog are kept for tests: no log for training is recorded in them.
HELD_OUT_WEATHERS = ("HardRainNoon", "HardRainSunset", "HardRainNight", "DustStorm", "Default")
TRAINING_WEATHERS = tuple(name for name in PRESETS if name not in HELD_OUT_WEATHERS)


@dataclass(frozen=True)
class RecordConfig:
    """One recording: many short drives in random places of some towns.

    Attributes:
        period_s: between logged ticks (0.5 is one latent tick); a multiple of `dt_s`.
        images: with pictures of `rig` at every tick; a log of states alone can be rendered later.
        rig: a rig file, "" for the default ring of six cameras.
        risky_fraction: drives by a driver who tailgates, brakes late, weaves and runs lights.
        noise_fraction: drives by the safe expert with a shaky foot and hand.
        vehicles, walkers: the town's own traffic around the ego.
        walker_event_fraction: drives in which somebody steps out in front of the ego.
        brake_event_fraction: drives in which the lead brakes hard.
        red_light_fraction: drives that start before a red light.
        planner: who drives instead of the expert and the risky drivers: a planner's name, or `package.module:Class`;
            it sees the rig's pictures four times a second, as in an evaluation.
        checkpoint: weights of a learned planner, "" for the shipped ones.
    """

    towns: tuple[str, ...] = ("Drivetown",)
    episodes: int = 8
    seconds: float = 30.0
    period_s: float = 0.1
    images: bool = True
    rig: str = ""
    risky_fraction: float = 1.0 / 3.0
    noise_fraction: float = 1.0 / 6.0
    seed: int = 0
    workers: int = 1
    vehicles: int = 25
    walkers: int = 12
    weathers: tuple[str, ...] = TRAINING_WEATHERS
    walker_event_fraction: float = 0.45
    brake_event_fraction: float = 0.35
    red_light_fraction: float = 0.25
    route_m: float = 450.0
    dt_s: float = 0.05
    planner: str = ""
    checkpoint: str = ""

    @property
    def steps_per_tick(self) -> int:
        """World steps from one logged tick to the next."""
        return max(1, round(self.period_s / self.dt_s))

    def validate(self) -> None:
        """Find what is wrong before any work starts.

        Raises:
            ConfigError: a number out of range, an unknown weather.
            drivesim.town.towns.UnknownTown: an unknown town.
        """
        if not self.towns:
            raise ConfigError("towns: name at least one")
        for town in self.towns:
            canonical_name(town)
        for weather in self.weathers:
            if weather not in PRESETS:
                raise ConfigError(f"weathers: no preset {weather!r}: {nearest(weather, PRESETS)}")
        if self.episodes < 1 or self.seconds <= 0.0 or self.workers < 1 or self.route_m < 50.0:
            raise ConfigError("episodes, seconds and workers must be positive, route_m at least 50")
        if abs(self.steps_per_tick * self.dt_s - self.period_s) > 1e-9:
            raise ConfigError(f"period_s {self.period_s} is not a multiple of dt_s {self.dt_s}")
        if not 0.0 <= self.risky_fraction + self.noise_fraction <= 1.0:
            raise ConfigError("risky_fraction and noise_fraction must add up to at most 1")
