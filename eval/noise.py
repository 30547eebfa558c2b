"""Study: what a world model keeps when something that does not matter disturbs its pictures.

    python -m eval.noise runs/nano --held-out runs/representation --out runs/noise
    python -m eval.noise runs/nano --rival mile=runs/mile/checkpoints/last --closed-loop dev

Held-out moments are rendered as they were and under each disturbance: falling leaves, rain streaks, billboards that
flicker, sensor noise, recoloured textures, unseen weather, a lost camera, 5 degrees and 10 cm of miscalibration. Kept
shares compare with the undisturbed figure of the same moments: of probes (R2, or AUC above a half), of the lead gap
read from imagined futures, of the predictor's gain over persistence, and of retrieval (the disturbed latent must find
its own moment among all). Probes never saw a disturbance. Intervals are over drives.
"""

from __future__ import annotations

from collections.abc import Callable
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
from drivesim.recording.branches import stage
from drivesim.recording.rendering import appearance_of, town_state
from drivesim.runs import write_json
from eval.bootstrap import over_drives
from eval.disturbed import DISTURBANCES, Eye, closed_loop
from eval.figure import Bar, Chart, figure
from eval.frozen import HeldOut, column_of, held_out, provenance, spread, study_parser, study_probe
from eval.probes import DETECTIONS, REGRESSIONS, Probe, area_under_curve, r_squared
from training.clips import Clips
from training.latents import encode_as

Rows = NDArray[np.int64]
AHEAD = {2: "1s", 4: "2s"}  # half-second ticks
LEAST = 0.05  # an undisturbed figure below this leaves nothing to keep
GOAL = 0.9
PROBED = (*(f"{name}_r2" for name in REGRESSIONS), *(f"{name}_auc" for name in DETECTIONS))
MEASURES = (*PROBED, *(f"{name}_{h}" for h in AHEAD.values() for name in ("imagined_gap_r2", "gain")), "retrieval")


@dataclass(frozen=True)
class Sights:
    """Latents of m moments of some drives, standardised.

    Attributes:
        pair: kind -> (m, 2, n, d) half a second before, and now; "clean" among the kinds.
        after: (m, ticks of AHEAD, n, d) undisturbed.
        row: (m,) row of now in the held-out cache, drive (m,).
    """

    pair: dict[str, Tensor]
    after: Tensor
    row: Rows
    drive: Rows


def views_of(log: DriveLog, number: int, ticks: Rows, rig: CameraRig, seed: int) -> NDArray[np.uint8]:
    """One drive's views (m, 2 * (1 + kinds) + len(AHEAD), v, 72, 128, 3): before and now in each kind, then later."""
    rng, renderer = np.random.default_rng([seed, number, 1]), stage(str(log.attrs["town"]))[1]
    path, layout = log.column("ego")[:, :2], ViewLayout.of(rig)
    eye = Eye.of(renderer, int(log.attrs["ego_row"]), rig, appearance_of(log), path, number, seed)
    kinds, out = ("clean", *DISTURBANCES), []
    for t in (int(tick) for tick in ticks):
        noise = [int(value) for value in rng.integers(1 << 31, size=2 + len(AHEAD))]
        seen = [eye.see(town_state(log, t + k), log.frame(t + k).ego, noise[k], kinds) for k in (-1, 0)]
        pictures = [tick[kind] for kind in kinds for tick in seen]
        pictures += [eye.clean(town_state(log, t + h), log.frame(t + h).ego, noise[1 + k]) for k, h in enumerate(AHEAD)]
        out.append(np.stack([layout.extract(picture) for picture in pictures]))
    return np.stack(out)


def sights(
    models: dict[str, WorldModel], held: HeldOut, drives: int, states: int, seed: int, folder: Path
) -> dict[str, Sights]:
    """Every model's latents of the same pictures; a drive that all have seen is not rendered again."""
    rig = default_rig()
    layout, starts = ViewLayout.of(rig), np.searchsorted(held.seen.episode, np.arange(len(held.logs)))
    numbers = list(range(min(drives, len(held.logs))))
    numbers.sort(key=lambda number: held.logs[number].stem.split("-", 1)[1])  # a town's renderer is slow to make
    parts: dict[str, list[Tensor]] = {label: [] for label in models}
    rows, drive = [], []
    for number in numbers:
        log = DriveLog(held.logs[number])
        ticks = spread(np.arange(1, len(log) - max(AHEAD)), max(1, states // len(numbers)))
        paths = {label: folder / f"{log.path.stem}-{model.digest}-{len(ticks)}-{seed}.pt"
                 for label, model in models.items()}  # fmt: skip
        if not all(path.exists() for path in paths.values()):
            views = views_of(log, number, ticks, rig, seed)
            folder.mkdir(parents=True, exist_ok=True)
            for label, model in models.items():
                flat = views.reshape(-1, *views.shape[2:])
                latents = encode_as(model, flat, layout.intrinsics, layout.ego_from_camera)
                torch.save(latents.view(*views.shape[:2], *latents.shape[1:]).half(), paths[label])
        for label in models:
            parts[label].append(torch.load(paths[label], weights_only=True).float())
        rows.append(starts[number] + ticks)
        drive.append(np.full(len(ticks), number))
    found = {}
    for label, of_drives in parts.items():
        every = torch.cat(of_drives)
        kinds = ("clean", *DISTURBANCES)
        pair = {kind: every[:, 2 * k : 2 * k + 2] for k, kind in enumerate(kinds)}
        found[label] = Sights(pair, every[:, 2 * len(kinds) :], np.concatenate(rows), np.concatenate(drive))
    return found


def found_again(disturbed: Tensor, clean: Tensor) -> NDArray[np.bool_]:
    """(m,) whether each disturbed latent's nearest clean one (cosine about the clean mean) is of its own moment."""
    mean = clean.flatten(1).mean(0)
    x, y = (torch.nn.functional.normalize(z.flatten(1) - mean, dim=1) for z in (disturbed, clean))
    return np.asarray(((x @ y.T).argmax(1) == torch.arange(len(x))).numpy())


@torch.no_grad()
def readings(model: WorldModel, probe: Probe, clips: Clips, seen: Sights, kind: str) -> dict[str, Any]:
    """All that a kind's figures are made of, by moment: what the probe says now and later, errors, retrieval."""
    pair, row = seen.pair[kind], seen.row
    steps = max(AHEAD)
    actions = torch.from_numpy(clips.table["action"][row[:, None] + np.arange(steps)])
    speed = torch.from_numpy(clips.table["speed"][row])
    future, _ = model.predictor.rollout(pair[:, 0], pair[:, 1], actions, speed)
    full = torch.cat([pair[:, 1:], future], dim=1)
    out: dict[str, Any] = {"now": probe(pair).double().numpy()}
    out["found"] = found_again(pair[:, 1], seen.pair["clean"][:, 1])
    for k, h in enumerate(AHEAD):
        out[f"gap_{AHEAD[h]}"] = probe(full[:, h - 1 : h + 1])[:, column_of("lead_gap")].double().numpy()
        out[f"error_{AHEAD[h]}"] = (future[:, h - 1] - seen.after[:, k]).square().mean((1, 2)).double().numpy()
        stayed = (seen.pair["clean"][:, 1] - seen.after[:, k]).square().mean((1, 2))
        out[f"stayed_{AHEAD[h]}"] = stayed.double().numpy()
    return out


def measures(clips: Clips, row: Rows, said: dict[str, Any]) -> dict[str, Callable[[Rows], float | None]]:
    """Every figure of one kind as a function of moments, so that intervals can draw them."""
    table, out = clips.table, dict[str, Callable[[Rows], float | None]]()

    def regression(told: Any, truth: Any, there: Any) -> Callable[[Rows], float | None]:
        def figure_of(rows: Rows) -> float | None:
            kept = rows[there[rows]]
            return r_squared(told[kept], truth[kept]) if len(kept) > 10 else None

        return figure_of

    everywhere = np.ones(len(row), bool)
    for name, mask in REGRESSIONS.items():
        there = table[mask][row] > 0.5 if mask else everywhere
        out[f"{name}_r2"] = regression(said["now"][:, column_of(name)], table[name][row].astype(np.float64), there)
    for name in DETECTIONS:
        told, label = said["now"][:, column_of(name)], table[name][row]
        out[f"{name}_auc"] = lambda r, told=told, label=label: area_under_curve(told[r], label[r])  # type: ignore[misc]
    for h, later in AHEAD.items():
        truth, there = table["lead_gap"][row + h].astype(np.float64), table["lead_present"][row + h] > 0.5
        out[f"imagined_gap_r2_{later}"] = regression(said[f"gap_{later}"], truth, there)
        error, stayed = said[f"error_{later}"], said[f"stayed_{later}"]
        out[f"gain_{later}"] = lambda r, e=error, s=stayed: float(1.0 - e[r].mean() / s[r].mean())  # type: ignore[misc]
    out["retrieval"] = lambda r, found=said["found"]: float(found[r].mean())  # type: ignore[misc]
    return out


def share(disturbed: float | None, clean: float | None, name: str) -> float | None:
    """What is kept of a figure; of an AUC, what is above a half."""
    base = 0.5 if name.endswith("_auc") else 0.0
    if disturbed is None or clean is None or clean - base < LEAST:
        return None
    return (disturbed - base) / (clean - base)


def kept_shares(disturbed: dict[str, Any], clean: dict[str, Any], drive: Rows, draws: int) -> dict[str, Any]:
    """Figure and kept share of every measure with intervals; `probes` is the mean share of all that can be probed."""

    def kept(name: str, rows: Rows) -> float | None:
        return share(disturbed[name](rows), clean[name](rows), name)

    def probes(rows: Rows) -> float | None:
        shares = [value for name in PROBED if (value := kept(name, rows)) is not None]
        return float(np.mean(np.clip(shares, 0.0, 1.0))) if shares else None

    result: dict[str, Any] = {
        name: {
            "figure": disturbed[name](np.arange(len(drive))),
            "kept": over_drives(lambda rows, name=name: kept(name, rows), drive, draws),  # type: ignore[misc]
        }
        for name in MEASURES
    }
    result["probes"] = {"kept": over_drives(probes, drive, draws)}
    return result


def judge(model: WorldModel, probe: Probe, clips: Clips, seen: Sights, draws: int) -> dict[str, Any]:
    """One model's table: the undisturbed figures, and what is kept of them under every disturbance."""
    clean = measures(clips, seen.row, readings(model, probe, clips, seen, "clean"))
    every = {name: over_drives(clean[name], seen.drive, draws) for name in MEASURES}
    kept = {
        kind: kept_shares(
            measures(clips, seen.row, readings(model, probe, clips, seen, kind)), clean, seen.drive, draws
        )
        for kind in DISTURBANCES
    }
    return {"encoder": model.digest, "clean": every, "disturbed": kept}


def charts(result: dict[str, Any]) -> list[Chart]:
    """The figure's parts: kept shares of what a driver needs, and of the driving score where it was driven."""
    wanted = {
        "probes": "mean kept share of all probes on the encoded latent (speed, lead gap, lane, lights, walkers)",
        "lead_gap_r2": "lead gap read from the encoded latent", "imagined_gap_r2_1s": "lead gap imagined for 1 s ahead",
        "gain_1s": "what the prediction for 1 s ahead gains over persistence",
        "retrieval": "moments found again among all moments",
    }  # fmt: skip
    models = result["models"].items()
    found = [
        Chart(f"Kept: {name.replace('_', ' ')}", about,
              [Bar(f"{label}, {kind.replace('_', ' ')}", judged["disturbed"][kind][name]["kept"], hue=k)
               for kind in DISTURBANCES for k, (label, judged) in enumerate(models)], high=1.2, goal=GOAL)
        for name, about in wanted.items()
    ]  # fmt: skip
    if loop := result.get("closed_loop"):
        bars = [Bar(f"{label}, {kind.replace('_', ' ')}", value["kept"], hue=k)
                for k, (label, driven) in enumerate(loop["models"].items())
                for kind, value in driven.items() if kind != "clean"]  # fmt: skip
        about = f"driving score of {loop['planner']} on suite {loop['suite']}, undisturbed = 1"
        found.append(Chart("Kept: driving score", about, bars, high=1.2, goal=GOAL))
    return found


def study(options: Any) -> dict[str, Any]:
    """Run everything; writes noise.json and noise.html."""
    held, train = held_out(options.held_out, options.drives, options.workers), Clips.load(options.run / "cache")
    paths = {"shipped": options.checkpoint, **dict(options.rival)}
    models = {label: WorldModel.load(path, default_rig()) for label, path in paths.items()}
    seen = sights(models, held, options.drives, options.states, options.seed, options.out / "latents")
    result = provenance("noise", options) | {"goal": GOAL, "models": {}}
    for label, model in models.items():
        keep = options.out / f"probes-{model.digest}-{options.probe_rows}-{options.seed}.pt"
        probe = study_probe(model, train, options.probe_rows, options.seed, keep)
        judged = judge(model, probe, held.seen, seen[label], options.draws)
        result["models"][label] = judged | {"moments": len(seen[label].row)}
        write_json(options.out / "noise.json", result)
    if options.closed_loop:
        loop = closed_loop(options.closed_loop, options.planner, paths, options.kinds, options.out / "driven", print)
        result["closed_loop"] = loop
        write_json(options.out / "noise.json", result)
    page = figure("Noise", "Held-out towns; the dashed line is the goal; 95 % over drives.", charts(result))
    (options.out / "noise.html").write_text(page, encoding="utf-8")
    return result


def named(text: str) -> tuple[str, Path]:
    """`NAME=PATH` of a rival."""
    name, _, path = text.partition("=")
    return name, Path(path)


def main() -> None:
    """Command line."""
    parser = study_parser(__doc__, "runs/noise")
    parser.add_argument("--states", type=int, default=480, help="moments, spread over the drives")
    parser.add_argument("--draws", type=int, default=400, help="of the bootstrap")
    parser.add_argument("--rival", type=named, action="append", default=[], metavar="NAME=PATH",
                        help="another checkpoint, judged on the same pictures")  # fmt: skip
    parser.add_argument("--closed-loop", default="", metavar="SUITE", help="drive this suite under disturbances, too")
    parser.add_argument("--planner", default="latent", help="who drives it")
    parser.add_argument("--kinds", nargs="+", default=list(DISTURBANCES), choices=DISTURBANCES, metavar="KIND",
                        help="disturbances it is driven under")  # fmt: skip
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    result = study(options)
    for label, judged in result["models"].items():
        for kind, found in judged["disturbed"].items():
            shares = {name: found[name]["kept"]["value"] for name in ("probes", "imagined_gap_r2_1s", "gain_1s")}
            told = ", ".join(f"{name} {value:.2f}" for name, value in shares.items() if value is not None)
            print(f"{label}, {kind}: {told}, retrieval {found['retrieval']['figure']:.2f}")


if __name__ == "__main__":
    main()
