"""Study: is the world model surprised by what cannot happen, and left cold by what only looks different?

    python -m eval.surprise runs/nano --held-out runs/representation --out runs/surprise

At held-out moments the next tick is rendered as it was, after an impossible edit (a car teleported, a car half in a
wall, a car gone, time frozen while the car drives) and after a purely visual one (recoloured, other weather).
Surprise is the error of the prediction made before: plain, of the worst slot, and against what is usual on training
drives for such a prediction ("unexpected"). Frozen time makes errors small, so it is judged by "stillness", how much
less than usual the latent moved; "surprise" is the larger of the two. Beside it the ensemble's disagreement when it
predicts on from there. AUC is of edited against ordinary moments, intervals over drives. An edit that the cameras
hardly see does not count.

"surprise" was designed on the first six held-out drives, after plain "error" had proved blind to frozen time: quote it
with `--skip 6`. "error" was there from the start.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from drivesim.datatypes import CameraRig, default_rig
from drivesim.logs import DriveLog
from drivesim.models import WorldModel
from drivesim.models.views import ViewLayout
from drivesim.recording import TRAINING_WEATHERS
from drivesim.recording.branches import stage
from drivesim.recording.rendering import appearance_of, town_state
from drivesim.runs import write_json
from drivesim.town.render import Appearance
from drivesim.town.scenery_cache import load_scenery
from drivesim.town.state import TownState
from drivesim.town.weather import preset
from drivesim.worlds.routes import lane_map
from drivesim.worlds.town_world import picture
from eval.bootstrap import over_drives
from eval.figure import Bar, Chart, figure
from eval.frozen import encode, encode_rows, provenance, spread, study_parser
from eval.impossible import teleported, through_wall, vanished
from eval.nuisances import recoloured
from eval.probes import area_under_curve
from training.clips import Clips

PHYSICAL = ("teleported", "through_wall", "vanished", "frozen")
VISUAL = ("recoloured", "weather")
KINDS = ("normal", *PHYSICAL, *VISUAL)
SCORES = ("surprise", "unexpected", "stillness", "error", "worst_slot", "disagreement")
MOVING_MPS = 3.0  # time that freezes shows only from a moving car
SEEN_PX, SEEN_STEP = 60, 24  # pixels that must change, by how much
TINY = 1e-6
LIMITS = np.array([[-8.0, -0.3], [5.0, 0.3]])  # of actions, as in training
GOALS = {"physical": 0.95, "visual": 0.60}


@dataclass(frozen=True)
class Moments:
    """m moments of one drive.

    Attributes:
        views: (m, 2 + kinds, v, 72, 128, 3) uint8: the tick before, now, and the next tick in every kind.
        there: (m, kinds) whether the kind exists at the moment and is seen.
        action: (m, 2, 2) from now to the next tick and from there on; speed (m, 2) m/s now and then.
    """

    views: NDArray[np.uint8]
    there: NDArray[np.bool_]
    action: NDArray[np.float32]
    speed: NDArray[np.float32]


def looks_of(log: DriveLog, rng: np.random.Generator) -> dict[str, Appearance]:
    """The drive's own look, another palette with other paint on the cars, and another weather."""
    own, weather = appearance_of(log), town_state(log, 0).weather
    names = [name for name in TRAINING_WEATHERS if not np.allclose(preset(name), weather)]
    changed = Appearance.from_weather(preset(str(rng.choice(names))), own.seed)
    return {"own": own, "recoloured": recoloured(own, rng), "weather": changed}


def edited(
    now: TownState,
    after: TownState,
    ego_row: int,
    speed_mps: float,
    buildings: NDArray[np.float64],
    rng: np.random.Generator,
) -> dict[str, TownState | None]:
    """The next tick's state after every impossible edit but frozen time, which is the state of now."""
    return {
        "teleported": teleported(after, ego_row, rng), "through_wall": through_wall(after, ego_row, buildings),
        "vanished": vanished(after, ego_row), "frozen": now if speed_mps > MOVING_MPS else None,
    }  # fmt: skip


def moments_of(log: DriveLog, rig: CameraRig, count: int, seed: int) -> Moments:
    """Render a drive's moments: the same noise of the cameras in every kind of a next tick."""
    rng, ego_row = np.random.default_rng([seed, int(log.attrs["seed"])]), int(log.attrs["ego_row"])
    _, renderer = stage(str(log.attrs["town"]))
    network = lane_map(str(log.attrs["town"])).network
    scenery, layout, looks = load_scenery(network), ViewLayout.of(rig), looks_of(log, rng)
    buildings = scenery.solids[: len(scenery.buildings)]
    ticks = spread(np.arange(1, len(log) - 2), count)
    actions = np.clip(log.column("action"), *LIMITS).astype(np.float32)
    shape = (len(ticks), 2 + len(KINDS), len(layout.views), 72, 128, 3)
    views, there = np.zeros(shape, np.uint8), np.zeros((len(ticks), len(KINDS)), bool)
    speed = np.zeros((len(ticks), 2), np.float32)
    for m, t in enumerate(int(tick) for tick in ticks):
        frames = [log.frame(t + k) for k in (-1, 0, 1)]
        states = [town_state(log, t + k) for k in (-1, 0, 1)]
        speed[m] = frames[1].ego.speed_mps, frames[2].ego.speed_mps
        noise = int(rng.integers(1 << 31))
        for k in range(2):
            drawn = picture(renderer, states[k], ego_row, frames[k].ego.world_from_ego, rig, looks["own"], noise + k)
            views[m, k] = layout.extract(drawn)
        normal = picture(renderer, states[2], ego_row, frames[2].ego.world_from_ego, rig, looks["own"], noise + 2)
        changes = edited(states[1], states[2], ego_row, float(speed[m].min()), buildings, rng)
        for k, kind in enumerate(KINDS):
            state, look, ego = changes.get(kind, states[2]), looks.get(kind, looks["own"]), frames[2].ego
            if state is None:
                continue
            ego = frames[1].ego if kind == "frozen" else ego
            drawn = normal
            if kind != "normal":
                drawn = picture(renderer, state, ego_row, ego.world_from_ego, rig, look, noise + 2)
            step = np.abs(drawn.astype(np.int16) - normal).max(-1)
            there[m, k] = kind not in PHYSICAL or int((step > SEEN_STEP).sum()) >= SEEN_PX
            views[m, 2 + k] = layout.extract(drawn)
    return Moments(views, there, np.stack([actions[ticks], actions[ticks + 1]], axis=1), speed)


def kept_moments(log: DriveLog, rig: CameraRig, count: int, seed: int, folder: Path) -> Moments:
    """`moments_of`, rendered once and read ever after."""
    path = folder / f"{log.path.stem}-{rig.digest}-{count}-{seed}.npz"
    if not path.exists():
        made = moments_of(log, rig, count, seed)
        folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial.npz")
        np.savez(partial, views=made.views, there=made.there, action=made.action, speed=made.speed)
        partial.replace(path)
    with np.load(path, allow_pickle=False) as data:
        return Moments(data["views"], data["there"], data["action"], data["speed"])


@dataclass(frozen=True)
class Step:
    """A prediction and what came: latents (b, n, d), the action (b, 2) and speed (b,) of the step."""

    now: Tensor
    predicted: Tensor
    came: Tensor
    doubt: Tensor
    action: Tensor
    speed: Tensor

    @staticmethod
    @torch.no_grad()
    def of(model: WorldModel, before: Tensor, now: Tensor, came: Tensor, action: Tensor, speed: Tensor) -> Step:
        """Predict one step; `doubt` (b,) is the ensemble's disagreement about it."""
        predicted, doubt = model.predictor.rollout(before, now, action[:, None], speed)
        return Step(now, predicted[:, 0], came, doubt[:, 0], action, speed)

    def features(self) -> Tensor:
        """What the size of an error and of a step is expected from: (b, 6)."""
        foreseen = (self.predicted - self.now).square().mean((1, 2)) + TINY
        columns = [torch.ones_like(foreseen), foreseen.log(), (self.doubt + TINY).log(), self.speed / 10.0,
                   self.action[:, 0].abs() / 3.0, (self.speed * self.action[:, 1]).abs()]  # fmt: skip
        return torch.stack(columns, dim=1)

    def sizes(self) -> Tensor:
        """Logarithms of the squared error and of the squared step that came: (b, 2)."""
        error = (self.came - self.predicted).square().mean((1, 2))
        moved = (self.came - self.now).square().mean((1, 2))
        return (torch.stack([error, moved], dim=1) + TINY).log()


@dataclass(frozen=True)
class Usual:
    """How large errors and steps usually are on training drives, given the prediction.

    Attributes:
        weights: (6, 2) of `Step.features` for `Step.sizes`, by least squares; spread (2,) of what is left.
        slot: (n,) mean squared error of each slot.
    """

    weights: Tensor
    spread: Tensor
    slot: Tensor

    @staticmethod
    def of(model: WorldModel, train: Clips, rows: int, seed: int) -> Usual:
        """From `rows` clips of three ticks in the drives' own looks."""
        starts = np.sort(np.random.default_rng(seed).permutation(train.starts(3))[:rows])
        before, now, came = (encode_rows(model, train, starts + k) for k in range(3))
        action, speed = (torch.from_numpy(train.table[name][starts + 1]) for name in ("action", "speed"))
        return Usual.fit(Step.of(model, before, now, came, action, speed))

    @staticmethod
    def fit(step: Step) -> Usual:
        """From steps that were ordinary."""
        features, sizes = step.features(), step.sizes()
        weights = torch.linalg.lstsq(features, sizes).solution
        left = (sizes - features @ weights).std(0).clamp(min=TINY)
        return Usual(weights, left, (step.came - step.predicted).square().mean((0, 2)).clamp(min=TINY))

    def judge(self, step: Step) -> dict[str, Tensor]:
        """Scores (b,) of steps; `unexpected` and `stillness` in standard deviations of what is usual."""
        sizes = step.sizes()
        above = (sizes - step.features() @ self.weights) / self.spread
        by_slot = (step.came - step.predicted).square().mean(2)
        standing = step.speed <= MOVING_MPS  # who stands cannot tell whether time does
        unexpected, stillness = above[:, 0], -above[:, 1]
        return {
            "surprise": torch.where(standing, unexpected, torch.maximum(unexpected, stillness)),
            "unexpected": unexpected, "stillness": stillness, "error": by_slot.mean(1),
            "worst_slot": (by_slot / self.slot).amax(1),
        }  # fmt: skip


@torch.no_grad()
def surprises(model: WorldModel, usual: Usual, moments: Moments, rig: CameraRig) -> dict[str, NDArray[np.float64]]:
    """Every score (m, kinds) of every kind of next tick."""
    layout = ViewLayout.of(rig)
    m, places = moments.views.shape[:2]
    flat = moments.views.reshape(-1, *moments.views.shape[2:])
    latents = encode(model, flat, layout.intrinsics, layout.ego_from_camera).view(m, places, *model.mean.shape)
    action, speed = torch.from_numpy(moments.action), torch.from_numpy(moments.speed)
    columns = []
    for k in range(len(KINDS)):
        came = latents[:, 2 + k]
        step = Step.of(model, latents[:, 0], latents[:, 1], came, action[:, 0], speed[:, 0])
        onward = model.predictor.rollout(latents[:, 1], came, action[:, 1:], speed[:, 1])[1][:, 0]
        columns.append(usual.judge(step) | {"disagreement": onward})
    return {name: torch.stack([column[name] for column in columns], dim=1).double().numpy() for name in SCORES}


def separation(
    score: NDArray[np.float64], there: NDArray[np.bool_], drive: NDArray[np.int64], kinds: tuple[str, ...]
) -> dict[str, Any]:
    """AUC of moments of some kinds against the same drives' ordinary moments, and how often one beats its own twin."""
    rows, columns = np.nonzero(there[:, [KINDS.index(kind) for kind in kinds]])
    values = score[rows, [KINDS.index(kinds[int(k)]) for k in columns]]
    pool = np.unique(rows)
    every = np.concatenate([values, score[pool, 0]])
    label = np.concatenate([np.ones(len(values)), np.zeros(len(pool))])
    beats = values > score[rows, 0]
    auc = over_drives(lambda r: area_under_curve(every[r], label[r]), np.concatenate([drive[rows], drive[pool]]))
    twin = over_drives(lambda r: float(beats[r].mean()), drive[rows])
    return {"auc": auc | {"n": len(values)}, "above_twin": twin}


def compare(scores: dict[str, NDArray[np.float64]], there: NDArray[np.bool_], drive: NDArray[np.int64]) -> Any:
    """Separation by score and kind, all physical and all visual kinds together among them."""
    groups = {"physical": PHYSICAL, "visual": VISUAL, **{kind: (kind,) for kind in KINDS[1:]}}
    return {
        name: {group: separation(score, there, drive, kinds) for group, kinds in groups.items()}
        for name, score in scores.items()
    }


def charts(result: dict[str, Any]) -> list[Chart]:
    """The figure's parts: one chart a score."""
    about = {
        "surprise": "the larger of unexpected and, for a car that moves, stillness",
        "unexpected": "error of the prediction, against what is usual for such a prediction on training drives",
        "stillness": "how much less than usual the latent moved",
        "error": "mean squared error of the prediction, standardised latent",
        "worst_slot": "error of the worst slot, against that slot's usual error",
        "disagreement": "the ensemble's disagreement about what comes next",
    }
    return [
        Chart(f"AUC by {name.replace('_', ' ')}", f"{about[name]}; the dashed line is the goal for what is physical",
              [Bar(group.replace("_", " "), value["auc"], hue=int(group in ("visual", *VISUAL)))
               for group, value in result["scores"][name].items()], goal=GOALS["physical"])
        for name in SCORES
    ]  # fmt: skip


def study(options: Any) -> dict[str, Any]:
    """Run everything; writes surprise.json and surprise.html."""
    model, rig = WorldModel.load(options.checkpoint), default_rig()
    paths = sorted((options.held_out / "logs").glob("*.zarr"))[options.skip :][: options.drives]
    if not paths:
        raise FileNotFoundError(f"no drives in {options.held_out}/logs: run `python -m eval.representation` first")
    # Drives of one town one after the other: its renderer is big and slow to make.
    logs = sorted((DriveLog(path) for path in paths), key=lambda log: str(log.attrs["town"]))
    usual = Usual.of(model, Clips.load(options.run / "cache"), options.probe_rows, options.seed)
    found: list[dict[str, NDArray[np.float64]]] = []
    there, drive = [], []
    count = max(1, options.states // len(logs))
    for number, log in enumerate(logs):
        moments = kept_moments(log, rig, count, options.seed, options.out / "moments")
        found.append(surprises(model, usual, moments, rig))
        there.append(moments.there)
        drive.append(np.full(len(moments.there), number))
    scores = {name: np.concatenate([part[name] for part in found]) for name in SCORES}
    seen, of = np.concatenate(there), np.concatenate(drive)
    result = provenance("surprise", options) | {
        "encoder": model.digest, "drives": len(logs), "moments": len(of), "goals": GOALS,
        "occasions": {kind: int(seen[:, k].sum()) for k, kind in enumerate(KINDS)},
        "scores": compare(scores, seen, of),
    }  # fmt: skip
    write_json(options.out / "surprise.json", result)
    page = figure("Surprise", f"{len(of)} moments of {len(logs)} held-out drives; 95 % over drives.", charts(result))
    (options.out / "surprise.html").write_text(page, encoding="utf-8")
    return result


def main() -> None:
    """Command line."""
    parser = study_parser(__doc__, "runs/surprise")
    parser.add_argument("--states", type=int, default=480, help="moments, spread over the drives")
    parser.add_argument("--skip", type=int, default=0, help="held-out drives left out at the front")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    result = study(options)
    print(f"occasions: {result['occasions']}")
    for name, groups in result["scores"].items():
        print(
            name, {group: value["auc"]["value"] and round(value["auc"]["value"], 3) for group, value in groups.items()}
        )


if __name__ == "__main__":
    main()
