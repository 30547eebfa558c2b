"""Made-up drives along a real town's lanes, with everything that a report can show."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageDraw

from drivesim.datatypes import (
    ActorSpec,
    EndReason,
    Episode,
    Estimate,
    Event,
    Measure,
    Outcome,
    Plan,
    Scenario,
    Scorecard,
    Snapshot,
    Trajectory,
    Waypoint,
    WeatherSpec,
)  # fmt: skip
from drivesim.town.roads import RoadNetwork

DT_S = 0.05


def lane_chain(network: RoadNetwork, length_m: float, rng: np.random.Generator) -> np.ndarray:
    """(n, 2) centre line of some driving lanes that follow each other, every metre, y left."""
    lane = int(network.spawn_lane[rng.integers(len(network.spawn_lane))])
    pieces, total = [], 0.0
    while total < length_m:
        rows = slice(int(network.lane_start[lane]), int(network.lane_start[lane] + network.lane_count[lane]))
        pieces.append(network.point_xyz_m[rows, :2] * np.array([1.0, -1.0]))
        total += float(network.lane_length_m[lane])
        following = [int(lane) for lane in network.lane_next[lane] if lane >= 0]
        if not following:
            break
        lane = following[int(rng.integers(len(following)))]
    points = np.concatenate(pieces).astype(np.float64)
    arc = np.concatenate([[0.0], np.cumsum(np.maximum(1e-6, np.hypot(*np.diff(points, axis=0).T)))])
    s = np.arange(0.0, min(length_m, arc[-1]), 1.0)
    return np.stack([np.interp(s, arc, points[:, i]) for i in range(2)], axis=1)


def picture(t_s: float) -> bytes:
    """A JPEG the shape of a camera strip: two rows of three."""
    image = Image.new("RGB", (768, 288), (96, 140, 190))
    draw = ImageDraw.Draw(image)
    for i in range(6):
        x, y = (i % 3) * 256, (i // 3) * 144
        draw.rectangle([x, y + 80, x + 255, y + 143], fill=(70, 74, 80))
        draw.polygon(
            [(x + 100, y + 143), (x + 124, y + 80), (x + 132, y + 80), (x + 156, y + 143)], fill=(220, 220, 210)
        )
        draw.rectangle([x + 40 + 10 * np.sin(t_s), y + 60, x + 80, y + 95], fill=(180, 40 + 20 * i, 50))
        draw.rectangle([x, y, x + 255, y + 143], outline=(0, 0, 0))
    out = io.BytesIO()
    image.save(out, "JPEG", quality=85)
    return out.getvalue()


def plan_along(s_m: float, speed_mps: float, rng: np.random.Generator, with_candidates: bool) -> Plan:
    """A plan that bends a little, and a fan of worse ones."""
    times = np.arange(1, 9) * 0.5

    def arc(curvature: float, speed: float) -> np.ndarray:
        run = speed * times
        yaw = curvature * run
        return np.stack([run * np.cos(yaw / 2), run * np.sin(yaw / 2), yaw], axis=1)

    bend = 0.004 * np.sin(s_m / 30)
    best = arc(bend, speed_mps)
    candidates = costs = None
    if with_candidates:
        fan = [best] + [arc(bend + rng.normal(0, 0.02), max(0.5, speed_mps * rng.uniform(0.3, 1.3))) for _ in range(31)]
        candidates, costs = np.stack(fan).astype(np.float32), np.sort(rng.gamma(2.0, 2.0, 32)).astype(np.float32)
    terms = {
        "collision": 0.4 * rng.random(),
        "off_road": 0.1 * rng.random(),
        "progress": -speed_mps / 4,
        "comfort": 0.2 * rng.random(),
    }
    return Plan(
        Trajectory(times, best, np.full(8, speed_mps)),
        np.zeros((8, 2)),
        terms,
        candidates,
        costs,
        {"disagreement": float(rng.random()), "surprise": float(rng.random())},
        "" if rng.random() < 0.97 else "every candidate collides: braking",
    )


def drive(scenario: Scenario, route: np.ndarray, planner: str, seed: int, *, pictures: bool = True) -> Episode:
    """An episode along `route`; weak planners stray, hit things, and stop early."""
    rng = np.random.default_rng([seed, len(planner), len(scenario.id)])
    ticks = int(rng.integers(500, 700))
    time_s = np.arange(ticks) * DT_S
    speed = np.clip(8 + 3 * np.sin(time_s / 4 + seed) + rng.normal(0, 0.3), 0, None)
    speed *= np.clip(time_s / 4, 0, 1)
    s = np.minimum(np.cumsum(speed) * DT_S, len(route) - 2.0)
    offset = 0.3 * np.sin(s / 15) + (1.5 * np.sin(s / 40) if planner == "behaviour-cloning" else 0.0)
    index = np.arange(len(route))
    x, y = np.interp(s, index, route[:, 0]), np.interp(s, index, route[:, 1])
    heading = np.unwrap(np.arctan2(*np.gradient(route, axis=0).T[::-1]))
    yaw = np.interp(s, index, heading)
    x, y = x - offset * np.sin(yaw), y + offset * np.cos(yaw)
    ego = np.stack([x, y, 0 * x, yaw, speed, np.gradient(speed, DT_S), np.gradient(yaw, DT_S), offset], axis=1)
    others = 12
    actor_s = np.clip(s[:, None] * 0.6 + np.linspace(-20, 90, others), 0, len(route) - 2)
    lateral = np.where(np.arange(others) % 3 == 0, 6.0, -3.5 * (np.arange(others) % 2))
    ax = np.interp(actor_s, index, route[:, 0]) - lateral * np.sin(np.interp(actor_s, index, heading))
    ay = np.interp(actor_s, index, route[:, 1]) + lateral * np.cos(np.interp(actor_s, index, heading))
    pose = np.stack([ax, ay, np.interp(actor_s, index, heading)], axis=2).astype(np.float32)
    kinds = (np.arange(others) % 3 == 0).astype(np.uint8)
    size = np.where(kinds[:, None] == 1, [0.5, 0.5], [4.6, 1.9]).astype(np.float32)
    events = ()
    if planner != "expert":
        at = ticks // 2
        events = (
            Event(
                "collision_vehicle",
                int(time_s[at] * 1e6),
                float(x[at]),
                float(y[at]),
                3,
                text="with vehicle.audi.tt at 4.1 m/s",
            ),
            Event("red_light", int(time_s[ticks // 4] * 1e6), float(x[ticks // 4]), float(y[ticks // 4])),
        )
    snapshots = tuple(
        Snapshot(
            int(time_s[k] * 1e6),
            plan_along(float(s[k]), float(speed[k]), rng, planner == "latent"),
            picture(time_s[k]) if pictures and k % 10 == 0 else b"",
        )
        for k in range(0, ticks, 5)
    )
    stop = len(route) // 3
    return Episode(
        scenario,
        planner,
        seed,
        EndReason.COMPLETED if planner == "expert" else EndReason.TIMEOUT,
        (time_s * 1e6).astype(np.int64),
        ego,
        np.stack(
            [
                np.clip(np.gradient(yaw, DT_S), -1, 1),
                np.clip(np.gradient(speed, DT_S) / 4, 0, 1),
                np.clip(-np.gradient(speed, DT_S) / 6, 0, 1),
            ],
            axis=1,
        ),
        route,
        np.full(len(route), 1.75),
        s,
        np.repeat(np.arange(ticks, dtype=np.int32), others),
        np.tile(np.arange(10, 10 + others, dtype=np.int64), ticks),
        np.tile(kinds, ticks),
        pose.reshape(-1, 3),
        np.tile(size, (ticks, 1)),
        np.array([0, 200, 260], np.int32),
        np.array([[0, 2], [1, 2], [2, 0]], np.uint8),
        np.array([[*route[stop], 0, heading[stop]], [*route[stop] + 8, 0, heading[stop] + 1.57]]),
        np.array([1.75, 1.75]),
        (4.79, 2.16, 1.44),
        events,
        snapshots,
        {"total": rng.gamma(30, 2.0 if planner == "latent" else 0.1, 100), "encode": rng.gamma(20, 1.0, 100)},
        "Traceback: <script>alert(1)</script>" if planner == "constant-velocity" else "",
    )


def outcome(episode: Episode) -> Outcome:
    """Scores in the vein of the leaderboard's, made up."""
    rng = np.random.default_rng([episode.seed, len(episode.planner), len(episode.scenario.id) + 7])
    strength = {"expert": 96.0, "latent": 82.0, "behaviour-cloning": 45.0}.get(episode.planner, 24.0)
    completion = float(np.clip(strength + rng.normal(0, 9), 3, 100))
    infractions: dict[str, float] = {event.kind: 1.0 for event in episode.events}
    score = completion * 0.6 ** len(infractions) if strength < 80 else completion
    measures = (
        Measure("driving_score", score, "points"),
        Measure("route_completion", completion, "%"),
        Measure("success", float(episode.planner == "expert"), "share"),
        Measure("penalty", score / completion, "factor"),
        Measure("distance_m", float(episode.progress_m[-1]), "m"),
    )
    return Outcome(episode.scenario.id, episode.planner, episode.seed, episode.end.value, measures, infractions)


def scorecard(episodes: list[Episode]) -> Scorecard:
    """Means with rough intervals."""
    outcomes = tuple(outcome(episode) for episode in episodes)
    planners: dict[str, dict[str, Estimate]] = {}
    for planner in dict.fromkeys(o.planner for o in outcomes):
        planners[planner] = {}
        for name in ("driving_score", "route_completion", "success", "penalty"):
            values = np.array([o.value(name) for o in outcomes if o.planner == planner], float)
            half = 1.96 * float(values.std()) / np.sqrt(len(values))
            planners[planner][name] = Estimate(
                float(values.mean()), (float(values.mean()) - half, float(values.mean()) + half), len(values)
            )
    return Scorecard("demo", planners, outcomes)


def suite_episodes(network: RoadNetwork, scenarios: int, planners: tuple[str, ...], seeds: int = 1) -> list[Episode]:
    """Every planner on some made-up scenarios of one town."""
    episodes = []
    names = [
        "hard_brake",
        "cut_in_left",
        "jaywalker",
        "red_light",
        "roundabout",
        "fog_follow",
        "night_merge",
        "rain_turn",
    ]
    for i in range(scenarios):
        route = lane_chain(network, 240.0, np.random.default_rng(i))
        scenario = Scenario(
            f"{names[i % len(names)]}{'' if i < len(names) else i}-v1",
            network.name,
            "The car ahead brakes hard; the ego has to stop behind it.",
            (Waypoint(*route[0]), Waypoint(*route[-1])),
            60.0,
            weather=WeatherSpec(("ClearNoon", "HardRainSunset", "ClearNight")[i % 3]),
            actors=(ActorSpec("hard_brake"),),
            traffic_vehicles=20,
            tags=("unseen-town",) if i % 2 else (),
        )
        episodes += [drive(scenario, route, planner, seed) for planner in planners for seed in range(seeds)]
    return episodes
