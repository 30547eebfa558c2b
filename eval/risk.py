"""Study: does imagination foresee collisions, and does the risk head mean what it says?

    python -m eval.risk runs/nano --held-out runs/representation --out runs/risk
    python -m eval.risk runs/nano --twin

Hypothetical drives of held-out states (the planner's standing candidates) and the two futures that branched states
were really driven into: does the ego collide, nearly collide or cross a red line within two seconds, if everybody
else does what the log says? The shipped risk head on imagined latents stands beside controls of the same size,
trained in the same way with as many steps on the same cache: "no imagination" (the last two latents, all that
imagination starts from) and "no vision" (kinematics alone); with `--twin` also "imagination", the shipped head
trained once more, as alone as its controls are. In the branches "what came" is the shipped head on the latents of
what was really seen later: what a perfect imagination would give it. States that already collide are left out.

AUC is over all candidates of all states; "ranking" within a state, over its candidates, where they differ; "which
state" over states, by their worst candidate. The calibration error (Guo 2017, 15 bins) is of single moments, as the
planner asks for them; most are harmless, so it stands beside the error where a risk of .1 or more is said. Intervals
are over drives.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from drivesim.datatypes import default_rig
from drivesim.geometry.bicycle import rollout
from drivesim.logs import DriveLog
from drivesim.models import WorldModel
from drivesim.models.heads import RISKS
from drivesim.runs import write_json
from eval.bootstrap import over_drives
from eval.figure import Bar, Chart, figure
from eval.frozen import HeldOut, encode_branches, encode_rows, first_drives, held_out, provenance, spread, study_parser
from eval.probes import area_under_curve
from eval.risk_heads import heads_config, trained_heads
from training.calibrate import expected_calibration_error
from training.clips import Clips
from training.heads import STEP_S, imagined_kinematics, imagined_pairs, with_past
from training.labels import future_risks

Array = NDArray[np.float64]
Rows = NDArray[np.int64]
STEPS = 4  # two seconds
CHUNK = 12
GOAL_CALIBRATION = 0.05
LOUD = 0.1  # most moments are harmless and said to be: among those said to be at least so likely, errors show
CONTROLS = ("no imagination", "no vision")
BINS = np.array([0.0, 0.01, 0.03, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0])  # of the reliability curve: most moments are harmless


@dataclass(frozen=True)
class Questions:
    """k drives from each of m states, STEPS moments each.

    Attributes:
        context: (m, 2, n, d) the last two latents.
        speed: (m,) m/s now; action (m, k, p, 2); kinematics (m, k, p, 16) of the asked moments.
        label: (m, k, p, 3) of RISKS at each moment.
        drive: (m,).
        came: (m, k, p, n, d) latents of what was really seen then; None for drives that nobody drove.
    """

    context: Tensor
    speed: Tensor
    action: Tensor
    kinematics: Tensor
    label: Tensor
    drive: Rows
    came: Tensor | None = None


def collides_now(held: HeldOut, row: int) -> bool:
    """Whether the ego touches somebody before any drive begins."""
    number, tick = held.place(row)
    frame = DriveLog(held.logs[number]).frame(tick)
    return bool(future_risks([frame, frame], np.zeros((1, 1, 3)), np.zeros((1, 1)))[0, 0, 0])


def kept_latents(folder: Path, name: str, rows: Rows, make: Callable[[], Tensor]) -> Tensor:
    """Latents of these rows from a kept file, else made and kept there."""
    path = folder / "latents" / f"{name}-{hashlib.sha256(rows.tobytes()).hexdigest()[:8]}.pt"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(make().half(), path)
    return torch.as_tensor(torch.load(path, weights_only=True)).float()


def context_of(model: WorldModel, clips: Clips, rows: Rows) -> Tensor:
    """The last two latents (m, 2, n, d) of rows; every tick is encoded once."""
    needed = np.unique(np.concatenate([rows - 1, rows]))
    latents = encode_rows(model, clips, needed)
    place = torch.from_numpy(np.searchsorted(needed, rows))
    return torch.stack([latents[place - 1], latents[place]], dim=1)


def hypothetical(model: WorldModel, held: HeldOut, clips: Clips, name: str, options: Any) -> Questions:
    """The standing candidates of at most `options.states` held-out states."""
    table, rows = clips.table, with_past(clips)
    rows = first_drives(clips, rows[table["risk_valid"][rows] > 0.5], options.drives)
    rows = np.array([row for row in spread(rows, options.states) if not collides_now(held, int(row))], dtype=np.int64)
    action, speed, distance, label = (
        torch.from_numpy(table[column][rows][:, :, :STEPS])
        for column in ("candidate_action", "candidate_speed", "candidate_distance", "risk")
    )
    now = torch.from_numpy(table["kinematics"][rows])[:, None].expand(-1, action.shape[1], -1)
    return Questions(
        kept_latents(options.out, f"{name}-{model.digest}", rows, lambda: context_of(model, clips, rows)),
        torch.from_numpy(table["speed"][rows]), action, imagined_kinematics(now, speed, action, distance), label,
        clips.episode[rows].astype(np.int64),
    )  # fmt: skip


def driven(model: WorldModel, held: HeldOut, options: Any) -> Questions:
    """Branched held-out states with the two futures they were really driven into; labels as for the candidates."""
    clips, labels, kept = held.seen, [], []
    usable = clips.branched()
    starts = clips.branch_start[usable]
    for branch in spread(usable[np.isin(starts, first_drives(clips, starts, options.drives))], options.branches):
        row = int(clips.branch_start[branch])
        number, tick = held.place(row)
        log = DriveLog(held.logs[number])
        if tick + STEPS >= len(log) or collides_now(held, row):
            continue
        poses, speeds = rollout(
            float(clips.branch_speed[branch, 0, 0]), clips.branch_action[branch].astype(np.float64), STEP_S
        )
        labels.append(future_risks([log.frame(tick + h) for h in range(STEPS + 1)], poses, speeds))
        kept.append(branch)
    chosen = np.array(kept, dtype=np.int64)
    rows, every = clips.branch_start[chosen], clips.branch_speed[chosen]
    action, speed = torch.from_numpy(clips.branch_action[chosen]), torch.from_numpy(every[..., 1:])
    distance = torch.from_numpy(np.cumsum(0.5 * STEP_S * (every[..., 1:] + every[..., :-1]), axis=-1))
    now = torch.from_numpy(clips.table["kinematics"][rows])[:, None].expand(-1, 2, -1)
    return Questions(
        kept_latents(options.out, f"driven-{model.digest}", rows, lambda: context_of(model, clips, rows)),
        torch.from_numpy(every[:, 0, 0]), action, imagined_kinematics(now, speed, action, distance),
        torch.from_numpy(np.stack(labels)), clips.episode[rows].astype(np.int64),
        kept_latents(options.out, f"came-{model.digest}", rows, lambda: encode_branches(model, clips, chosen)),
    )  # fmt: skip


@torch.no_grad()
def answers(model: WorldModel, heads: dict[str, nn.Module], asked: Questions) -> dict[str, Tensor]:
    """Probabilities (m, k, p, 3) by head; the shipped one is calibrated, as the planner has it."""
    found: dict[str, list[Tensor]] = {}
    for first in range(0, len(asked.drive), CHUNK):
        part = slice(first, first + CHUNK)
        context, shape = asked.context[part], asked.label[part].shape
        seen = {"imagined": imagined_pairs(model.predictor, context, asked.action[part], asked.speed[part])}
        seen["now"] = context[:, None, None].expand(seen["imagined"].shape)
        if asked.came is not None:
            seen["came"] = torch.stack([seen["imagined"][..., 0, :, :], asked.came[part]], dim=3)
        logits = {
            label: head(seen["imagined" if label == "imagination" else "now"].flatten(0, 2),
                        asked.kinematics[part].flatten(0, 2))
            for label, head in heads.items()
        }  # fmt: skip
        for label, sight in (("shipped", "imagined"), ("what came", "came")):
            if sight in seen:
                raw = model.risk(seen[sight].flatten(0, 2), asked.kinematics[part].flatten(0, 2))
                logits[label] = raw / model.risk_temperature
        for label, value in logits.items():
            found.setdefault(label, []).append(value.sigmoid().view(shape))
    return {label: torch.cat(parts) for label, parts in found.items()}


def within(moments: Tensor) -> Array:
    """Probability (m, k) that it happens at one of the moments (m, k, p), each taken for itself."""
    return np.asarray(1.0 - (1.0 - moments.double()).prod(dim=2).numpy())


def rankings(score: Array, label: Array) -> Array:
    """AUC (m,) over the candidates of each state, NaN where they do not differ."""
    found = [area_under_curve(s, t) if t.min() < t.max() else None for s, t in zip(score, label, strict=True)]
    return np.array([np.nan if value is None else value for value in found], dtype=np.float64)


def measures(score: Array, label: Array) -> dict[str, Callable[[Rows], float | None]]:
    """The three figures of scores (m, k) as functions of states, so that intervals can draw them."""
    ranked, worst, any_label = rankings(score, label), score.max(1), label.max(1)

    def ranking(rows: Rows) -> float | None:
        own = ranked[rows]
        return float(np.nanmean(own)) if np.isfinite(own).any() else None

    return {
        "auc": lambda rows: area_under_curve(score[rows].ravel(), label[rows].ravel()),
        "ranking": ranking,
        "which_state": lambda rows: area_under_curve(worst[rows], any_label[rows]),
    }


def above(one: Callable[[Rows], float | None], other: Callable[[Rows], float | None]) -> Callable[[Rows], float | None]:
    """Difference of two figures on the same drives."""

    def difference(rows: Rows) -> float | None:
        a, b = one(rows), other(rows)
        return None if a is None or b is None else a - b

    return difference


def calibration(probability: Tensor, label: Tensor, drive: Rows, draws: int) -> dict[str, Any]:
    """Calibration error of single moments (m, k, p), and the reliability curve by BINS of what was said."""

    def error(rows: Rows) -> float:
        index = torch.from_numpy(rows)
        return expected_calibration_error(probability[index].flatten(), label[index].flatten())

    def loud(rows: Rows) -> float | None:
        index = torch.from_numpy(rows)
        kept = probability[index] >= LOUD
        if not kept.any():
            return None
        return expected_calibration_error(probability[index][kept], label[index][kept])

    said, happened = probability.double().numpy(), label.double().numpy()
    place = np.clip(np.searchsorted(BINS, said, side="right") - 1, 0, len(BINS) - 2)
    curve = []
    for number in range(len(BINS) - 1):
        inside = place == number
        count, hits = inside.sum((1, 2)), (happened * inside).sum((1, 2))

        def frequency(rows: Rows, count: Any = count, hits: Any = hits) -> float | None:
            total = float(count[rows].sum())
            return float(hits[rows].sum()) / total if total else None

        curve.append({
            "from": float(BINS[number]), "to": float(BINS[number + 1]), "moments": int(inside.sum()),
            "said": float(said[inside].mean()) if inside.any() else None,
            "happened": over_drives(frequency, drive, draws),
        })  # fmt: skip
    return {
        "error": over_drives(error, drive, draws), "error_where_loud": over_drives(loud, drive, draws),
        "reliability": curve, "rate": float(happened.mean()),
    }  # fmt: skip


def judge(asked: Questions, said: dict[str, Tensor], draws: int) -> dict[str, Any]:
    """Every figure of one set of questions, by risk."""
    result: dict[str, Any] = {"states": len(asked.drive), "drives": len(np.unique(asked.drive))}
    for column, name in enumerate(RISKS):
        label = asked.label[..., column].amax(2).double().numpy()
        by_head = {head: measures(within(value[..., column]), label) for head, value in said.items()}
        result[name] = {
            "rate": float(label.mean()), "events": int(label.sum()),
            "figures": {
                head: {key: over_drives(one, asked.drive, draws) for key, one in found.items()}
                for head, found in by_head.items()
            },
            "above": {
                f"{head} above {control}": {
                    key: over_drives(above(by_head[head][key], by_head[control][key]), asked.drive, draws)
                    for key in by_head[head]
                }
                for head in ("shipped", "imagination") if head in by_head for control in CONTROLS
            },
            "calibration": calibration(said["shipped"][..., column], asked.label[..., column], asked.drive, draws),
        }  # fmt: skip
    return result


def charts(questions: dict[str, Any]) -> list[Chart]:
    """The figure's parts."""
    found = []
    for key, about in (
        ("auc", "over all drives of all states"), ("ranking", "within a state, over its drives"),
        ("which_state", "over states, by their worst drive"),
    ):  # fmt: skip
        for risk in RISKS:
            bars = [
                Bar(f"{kind.replace('_', ' ')}, {head}", value[key], hue=k)
                for kind, result in questions.items()
                for k, (head, value) in enumerate(sorted(result[risk]["figures"].items()))
            ]
            found.append(Chart(f"{risk.replace('_', ' ')} within 2 s: AUC", about, bars, low=0.4))
        bars = [
            Bar(f"{kind.replace('_', ' ')}, {pair}", value[key], hue=k // 2)
            for kind, result in questions.items()
            for k, (pair, value) in enumerate(result["collision"]["above"].items())
        ]  # fmt: skip
        found.append(Chart("collision within 2 s: imagination above its controls", about, bars, -0.1, 0.3, 0.0))
    for key, about in (("error", "of single moments"), ("error_where_loud", f"of moments said to be {LOUD} or more")):
        bars = [Bar(f"{kind.replace('_', ' ')}, {risk.replace('_', ' ')}", result[risk]["calibration"][key])
                for kind, result in questions.items() for risk in RISKS]  # fmt: skip
        high, goal = (0.1, GOAL_CALIBRATION) if key == "error" else (0.5, None)
        found.append(Chart("calibration error of the shipped head", about, bars, 0.0, high, goal))
    for risk in RISKS:
        bars = [
            Bar(f"{kind.replace('_', ' ')}, said {part['said']:.3f}", part["happened"], hue=k)
            for k, (kind, result) in enumerate(questions.items())
            for part in result[risk]["calibration"]["reliability"] if part["moments"]
        ]  # fmt: skip
        found.append(
            Chart(f"{risk.replace('_', ' ')}: reliability", "how often it happened, where so much was said", bars)
        )
    return found


def study(options: Any) -> dict[str, Any]:
    """Run everything; writes risk.json and risk.html."""
    model, train = WorldModel.load(options.checkpoint, default_rig()), Clips.load(options.run / "cache")
    held = held_out(options.held_out, options.drives, options.workers)
    result = provenance("risk", options) | {"goal_calibration_error": GOAL_CALIBRATION, "questions": {}}
    config = heads_config(options.checkpoint, options.heads_steps)
    heads = trained_heads(
        options.run, train, model, config, options.out / "heads", result["checkpoint_sha256"], options.seed,
        (*CONTROLS, "imagination") if options.twin else CONTROLS,
    )  # fmt: skip
    for name, clips in (("seen_weather", held.seen), ("unseen_weather", held.unseen), ("driven", None)):
        asked = driven(model, held, options) if clips is None else hypothetical(model, held, clips, name, options)
        result["questions"][name] = judge(asked, answers(model, heads, asked), options.draws)
        write_json(options.out / "risk.json", result)
    about = "Held-out towns; intervals are 95 % over drives."
    (options.out / "risk.html").write_text(figure("Foreseen risks", about, charts(result["questions"])), "utf-8")
    return result


def main() -> None:
    """Command line."""
    parser = study_parser(__doc__, "runs/risk")
    parser.add_argument("--states", type=int, default=1400, help="held-out states of each weather")
    parser.add_argument("--branches", type=int, default=500, help="branched held-out states")
    parser.add_argument("--twin", action="store_true", help="train the shipped head once more, too (half an hour)")
    parser.add_argument(
        "--heads-steps", type=int, default=0, help="of the controls; 0: as many as the checkpoint's heads had"
    )
    parser.add_argument("--draws", type=int, default=200, help="of the bootstrap")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for kind, found in study(options)["questions"].items():
        for risk in RISKS:
            heads = found[risk]["figures"].items()
            told = ", ".join(f"{head} {value['auc']['value']}" for head, value in heads)
            error = found[risk]["calibration"]["error"]["value"]
            print(f"{kind}, {risk} within 2 s: AUC {told}; calibration error {error}, events {found[risk]['events']}")


if __name__ == "__main__":
    main()
