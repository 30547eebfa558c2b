"""What a seed changes in a scenario: sky, start, and the numbers of its scripted actors."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from drivesim.config import ConfigError, nearest
from drivesim.datatypes import ActorSpec, Scenario, WeatherSpec
from drivesim.town.weather import CLOUDINESS, PARAMETERS, PRESETS, SUN_ALTITUDE, SUN_AZIMUTH, preset
from drivesim.worlds.behaviors import PATH_ROUTE, behavior

START_S_M = 3.0  # the ego's rear axle on the route, before variation
_FACTORS = {"speed_mps": 0.06, "end_speed_mps": 0.06, "resume_mps": 0.06, "gap_m": 0.10, "trigger_time_s": 0.08,
            "trigger_distance_m": 0.08, "hold_s": 0.15, "duration_s": 0.10, "go_s": 0.10, "stop_s": 0.10,
            "red_s": 0.20}  # fmt: skip
_SHIFTED = ("brake_at_s_m", "cut_at_s_m")  # places along the route move with their actors


@dataclass(frozen=True)
class Variation:
    """One seed's version of a scenario.

    Attributes:
        actors: the scripted actors with their numbers varied.
        weather: (14,) CARLA's parameters, in the wire's order.
        start_s_m: where on the route the ego's rear axle starts.
        start_speed_mps: how fast.
        traffic_seed: for the Traffic Manager or the town's own traffic.
    """

    actors: tuple[ActorSpec, ...]
    weather: NDArray[np.float64]
    start_s_m: float
    start_speed_mps: float
    traffic_seed: int


def generator(scenario: Scenario, seed: int, purpose: str) -> np.random.Generator:
    """A generator of its own for each scenario, seed and purpose."""
    words = [scenario.seed, seed, zlib.crc32(scenario.id.encode()), zlib.crc32(purpose.encode())]
    return np.random.default_rng(words)


def vary(scenario: Scenario, seed: int) -> Variation:
    """What `seed` makes of `scenario`; a pure function."""
    rng = generator(scenario, seed, "variation")
    shift_m = float(rng.uniform(-3.0, 3.0))  # one for all, so that a walker stays behind the van that hides it
    actors = tuple(_vary_actor(spec, shift_m, rng) for spec in scenario.actors)
    weather = weather_of(scenario.weather)
    weather[SUN_AZIMUTH] += rng.uniform(-40.0, 40.0)
    if weather[SUN_ALTITUDE] > 0.0:
        weather[SUN_ALTITUDE] += rng.uniform(-4.0, 4.0)
    weather[CLOUDINESS] = min(max(weather[CLOUDINESS] + rng.uniform(-8.0, 8.0), 0.0), 100.0)
    start_s = START_S_M + float(rng.uniform(0.0, 4.0))
    speed = scenario.initial_speed_mps * float(rng.uniform(0.95, 1.05))
    # weather goes over the wire as float32: have the same numbers in process
    weather = weather.astype(np.float32).astype(np.float64)
    return Variation(actors, weather, start_s, speed, int(rng.integers(1, 2**31 - 1)))


def weather_of(spec: WeatherSpec) -> NDArray[np.float64]:
    """(14,) CARLA's parameters of a weather: the preset, then single values over it.

    Raises:
        ConfigError: an unknown preset or parameter.
    """
    if spec.preset not in PRESETS:
        raise ConfigError(f"unknown weather preset {spec.preset!r}: {nearest(spec.preset, PRESETS)}")
    weather = preset(spec.preset)
    for name, value in spec.parameters.items():
        if name not in PARAMETERS:
            raise ConfigError(f"unknown weather parameter {name!r}: {nearest(name, PARAMETERS)}")
        weather[PARAMETERS.index(name)] = float(value)
    return weather


def _vary_actor(spec: ActorSpec, shift_m: float, rng: np.random.Generator) -> ActorSpec:
    parameters = dict(spec.parameters)
    for name, value in spec.parameters.items():
        if name in _FACTORS:
            parameters[name] = float(value) * float(rng.uniform(1.0 - _FACTORS[name], 1.0 + _FACTORS[name]))
        elif name in _SHIFTED:
            parameters[name] = float(value) + shift_m
    if behavior(spec.behavior).path != PATH_ROUTE:
        return replace(spec, parameters=parameters)
    return replace(spec, route_s_m=spec.route_s_m + shift_m, parameters=parameters)
