"""Disturbed eyes: a rig that sees a town as it is or under one disturbance, from logged states or while driving."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drivesim.build import PLANNERS, make_controller
from drivesim.datatypes import CameraRig, EgoState, Frame, Scenario, default_rig
from drivesim.drive import Driver, run_episode
from drivesim.episodes import load_episode, save_episode
from drivesim.scoring.outcome import score
from drivesim.suite.files import Job, load_suite
from drivesim.town.render import Appearance, TownRenderer
from drivesim.town.state import TownState
from drivesim.town.weather import PRESETS, preset
from drivesim.worlds.scenario_files import load_scenario
from drivesim.worlds.town_world import TownWorld, rig_views
from eval.bootstrap import over_drives
from eval.nuisances import PAINTED, Painter, billboards, boards_along, miscalibrated, recoloured
from training.cache import DENSE_FOG, UNSEEN_WEATHERS

DISTURBANCES = (*PAINTED, "billboards", "recoloured", "unseen_weather", "miscalibrated")
Images = NDArray[np.uint8]


@dataclass(frozen=True)
class Eye:
    """One drive seen by the rig: renders a tick as it was or disturbed."""

    renderer: TownRenderer
    ego_row: int
    rig: CameraRig
    moved: CameraRig
    looks: dict[str, Appearance]
    painter: Painter
    boards: NDArray[np.float64]

    @staticmethod
    def of(
        renderer: TownRenderer,
        ego_row: int,
        rig: CameraRig,
        own: Appearance,
        path_m: NDArray[np.float64],
        number: int,
        seed: int,
    ) -> Eye:
        """Choose a drive's other look, weather, lost camera and knocked cameras.

        Args:
            own: how the drive looks undisturbed.
            path_m: (n, 2) along which the billboards stand.
            number: of the drive; the unseen weathers are taken in turn.
        """
        rng = np.random.default_rng([seed, number])
        name = UNSEEN_WEATHERS[number % len(UNSEEN_WEATHERS)]
        weather = preset(name) if name in PRESETS else DENSE_FOG
        looks = {
            "own": own, "recoloured": recoloured(own, rng),
            "unseen_weather": Appearance.from_weather(weather, own.seed),
        }  # fmt: skip
        return Eye(renderer, ego_row, rig, miscalibrated(rig, rng), looks, Painter.of(rig, rng), boards_along(path_m))

    def draw(
        self, state: TownState, ego: EgoState, rig: CameraRig, look: Appearance, seed: int
    ) -> tuple[Images, NDArray[np.float32]]:
        """Pictures (v, h, w, 3) RGB and depth (v, h, w) m along the optical axes."""
        views = rig_views(rig, ego.world_from_ego)
        drawn = self.renderer.render(state, views, look, frame_seed=seed, hide_row=self.ego_row)
        return np.ascontiguousarray(drawn.bgra[..., 2::-1]), drawn.depth_m

    def clean(self, state: TownState, ego: EgoState, seed: int) -> Images:
        """Pictures of a tick as it was."""
        return self.draw(state, ego, self.rig, self.looks["own"], seed)[0]

    def see(self, state: TownState, ego: EgoState, seed: int, kinds: Sequence[str]) -> dict[str, Images]:
        """Pictures of one tick under some disturbances ("clean": as it was); what is painted follows from the seed."""
        seen = dict[str, Images]()
        clean, depth_m = self.draw(state, ego, self.rig, self.looks["own"], seed)
        for kind in kinds:
            rng = np.random.default_rng([seed, len(kind), *kind.encode()])
            if kind == "clean":
                seen[kind] = clean
            elif kind in PAINTED:
                seen[kind] = self.painter.paint(kind, clean, rng)
            elif kind == "billboards":
                seen[kind] = billboards(clean, depth_m, self.rig, ego, self.boards, rng)
            elif kind == "miscalibrated":
                seen[kind] = self.draw(state, ego, self.moved, self.looks["own"], seed)[0]
            else:
                seen[kind] = self.draw(state, ego, self.rig, self.looks[kind], seed)[0]
        return seen


class DisturbedWorld(TownWorld):
    """The embedded world whose cameras are disturbed all along; the driver is told of nothing."""

    def __init__(self, rig: CameraRig, kind: str, *, camera_period_s: float = 0.25) -> None:
        """See `TownWorld`; `kind` is one of DISTURBANCES or "clean"."""
        super().__init__(rig, camera_period_s=camera_period_s)
        self.kind = kind
        self._eye: Eye | None = None

    def reset(self, scenario: Scenario, seed: int) -> Frame:
        """See `TownWorld.reset`."""
        self._eye = None
        return super().reset(scenario, seed)

    def render(self, rig: CameraRig, appearance: Any = None) -> Images:
        """(v, h, w, 3) RGB of this tick, disturbed."""
        if self._eye is None:
            path = self.route.curve.points_m
            number = self.variation.traffic_seed % 997
            self._eye = Eye.of(self.renderer, self.ego_row, rig, self.appearance, path, number, number)
        return self._eye.see(self.town.state, self._frame.ego, self._tick, (self.kind,))[self.kind]


def closed_loop(
    suite: str, planner: str, checkpoints: dict[str, Path], kinds: Sequence[str], out: Path, tell: Callable[[str], None]
) -> dict[str, Any]:
    """Driving scores undisturbed and disturbed, paired by scenario; what is driven already is read.

    Args:
        suite: id or path.
        planner: name in `drivesim.build.PLANNERS` that takes a checkpoint.
        checkpoints: label -> weights.
    """
    scenarios = [load_scenario(name) for name in load_suite(suite).scenarios]
    result: dict[str, Any] = {"suite": suite, "planner": planner, "scenarios": len(scenarios), "models": {}}
    for label, checkpoint in checkpoints.items():
        scores = {}
        for kind in ("clean", *kinds):
            found = [drive(scenario, planner, checkpoint, kind, out / label / kind) for scenario in scenarios]
            scores[kind] = np.array(found)
            tell(f"{label}, {kind}: driving score {np.mean(found):.1f} of {len(found)}")
        result["models"][label] = {kind: kept_score(values, scores["clean"]) for kind, values in scores.items()}
    return result


def kept_score(scores: NDArray[np.float64], clean: NDArray[np.float64]) -> dict[str, Any]:
    """Mean score and share of the undisturbed mean, with intervals over scenarios (n,)."""

    def mean(rows: NDArray[np.int64]) -> float:
        return float(scores[rows].mean())

    def kept(rows: NDArray[np.int64]) -> float | None:
        base = float(clean[rows].mean())
        return float(scores[rows].mean()) / base if base > 0.0 else None

    number = np.arange(len(scores))
    return {"score": over_drives(mean, number), "kept": over_drives(kept, number)}


def drive(scenario: Scenario, planner: str, checkpoint: Path, kind: str, out: Path) -> float:
    """Driving score of one scenario under one disturbance."""
    path = Job(scenario, planner, 0).path(out)
    if path.is_file() and (found := load_episode(path)).scenario == scenario:
        episode = found
    else:
        rig = default_rig()
        driver = Driver(PLANNERS[planner](checkpoint), make_controller(), rig)
        episode = run_episode(DisturbedWorld(rig, kind), driver, scenario, 0)
        if episode.error:
            raise RuntimeError(f"{planner} in {scenario.id} under {kind}: {episode.error}")
        save_episode(replace(episode, planner=planner), path)
    return float(score(episode).value("driving_score") or 0.0)
