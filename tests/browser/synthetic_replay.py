"""A made-up replay with everything that the page can show."""

from __future__ import annotations

import numpy as np

from drivesim.datatypes import Scenario, Waypoint
from drivesim.reports.replay_page import Counterfactual, Forecasts, ReplayData
from drivesim.town.roads import RoadNetwork
from tests.browser.synthetic_drives import drive, lane_chain


def replay_data(network: RoadNetwork, with_grids: bool = True) -> ReplayData:
    rng = np.random.default_rng(3)
    route = lane_chain(network, 240.0, rng)
    scenario = Scenario("replay-v1", network.name, "a drive", (Waypoint(*route[0]), Waypoint(*route[-1])), 60.0)
    episode = drive(scenario, route, "latent", 0)
    rows = np.arange(0, len(episode.ego), 10)
    ego = episode.ego[rows][:, [0, 1, 3, 4, 5]]
    times = (episode.times_us[rows] - episode.times_us[0]) / 1e6
    tokens = 18
    phase = np.linspace(0, 6, tokens)[None, :, None] + times[:, None, None] / 6 + np.arange(3) * 2
    moments, horizon = times[::2], np.arange(1, 9) * 0.5
    speed = ego[::2, 3]
    came = np.stack([speed[:, None] * horizon, 0.02 * (speed[:, None] * horizon) ** 1.5], axis=2)
    gap = np.where(rng.random((len(moments), 1)) < 0.2, np.nan, 18 - 1.5 * horizon + 4 * np.sin(moments)[:, None])
    risk = 1 / (1 + np.exp(gap / 3 - 2))
    y, x = np.meshgrid(np.linspace(20, -20, 20), np.linspace(40, -10, 25))
    spot = np.exp(
        -(
            (x[None, None] - 6 - 1.2 * horizon[None, :, None, None] * 5 - np.zeros((len(moments), 1, 1, 1))) ** 2
            + (y[None, None] - 2) ** 2
        )
        / 12
    )
    boxes = []
    for tick in rows:
        here = episode.actor_tick == tick
        boxes.append(np.concatenate([episode.actor_pose[here], episode.actor_size[here]], axis=1).astype(np.float64))
    after = np.arange(0, 9) * 0.5
    counterfactual = Counterfactual(
        12.0,
        "brake at 4 m/s² instead",
        after,
        {
            "lead_gap_m": {
                "as driven, came": 14 - 1.4 * after,
                "as driven, imagined": 14 - 1.2 * after + 0.3 * np.sin(after),
                "brake, branched world": 14 + 0.9 * after**1.4,
                "brake, imagined": 14 + 0.7 * after**1.4,
            },
            "collision_risk": {"as driven, imagined": 0.1 + 0.08 * after, "brake, imagined": 0.1 * np.exp(-after)},
        },
    )
    surprise = np.abs(rng.normal(0.2, 0.05, len(times))) + 0.6 * np.exp(-((times - 14) ** 2))
    return ReplayData(
        "town02/drive-003",
        {"town": network.name, "length": f"{times[-1]:.1f} s", "model": "nano, encoder 3f2a9c1b"},
        times,
        ego,
        {"one step": surprise, "4 seconds": np.where(times < 4, np.nan, 1.7 * np.roll(surprise, 2))},
        0.5 + 0.5 * np.sin(phase),
        np.array([s.time_us for s in episode.snapshots if s.thumbnail_jpeg]) / 1e6,
        tuple(s.thumbnail_jpeg for s in episode.snapshots if s.thumbnail_jpeg),
        Forecasts(
            moments,
            horizon,
            came * (1 + 0.05 * rng.normal(size=came.shape)),
            came,
            {
                "lead_gap_m": (gap + rng.normal(0, 0.6, gap.shape), gap),
                "collision_risk": (np.clip(risk + 0.05, 0, 1), (risk > 0.5).astype(float)),
            },
            np.clip(spot + 0.05 * rng.random(spot.shape), 0, 1) if with_grids else None,
            spot > 0.5 if with_grids else None,
        ),
        counterfactual,
        tuple(boxes),
        network.name,
        (3, 6),
        ("Surprise is the distance between the latent that came and the one that was imagined, 0 is none.",),
    )
