"""A scenario: pure data. World frame of scenarios is CARLA's map frame turned right-handed (y = -carla y)."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Waypoint:
    """A point of the route, metres, world frame (right-handed: y is CARLA's y negated)."""

    x_m: float
    y_m: float


@dataclass(frozen=True)
class WeatherSpec:
    """A CARLA preset by name, or single parameters that override it."""

    preset: str = "ClearNoon"
    parameters: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ActorSpec:
    """A scripted actor beside the background traffic.

    Attributes:
        behavior: name of a behaviour of `drivesim.worlds.behaviors` (hard_brake, cut_in, cross_road, parked...).
        blueprint: CARLA blueprint id.
        route_s_m: where it starts, metres along the ego's route.
        lateral_m: left of the route's centre line (negative right).
        yaw_offset_deg: heading against the route's.
        parameters: the behaviour's numbers (speed_mps, trigger_distance_m, ...).
    """

    behavior: str
    blueprint: str = "vehicle.tesla.model3"
    route_s_m: float = 30.0
    lateral_m: float = 0.0
    yaw_offset_deg: float = 0.0
    parameters: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Scenario:
    """One scenario of a suite; the id carries a version (`cut_in_left-v1`)."""

    id: str
    town: str
    description: str
    route: tuple[Waypoint, ...]  # at least start and goal; joined along lanes
    time_limit_s: float
    initial_speed_mps: float = 0.0
    weather: WeatherSpec = field(default_factory=WeatherSpec)
    actors: tuple[ActorSpec, ...] = ()
    traffic_vehicles: int = 0  # Traffic Manager vehicles around the route
    traffic_walkers: int = 0
    dt_s: float = 0.05
    seed: int = 0
    tags: tuple[str, ...] = ()  # e.g. "unseen-town", "unseen-weather", "pedestrian"
