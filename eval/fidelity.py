"""Study: does the latent world rank planners as the embedded world does, and how much faster is it?

    python -m eval.fidelity logs/town02 --out runs/fidelity --starts 24 --seeds 4 --threads 2

Every planner (ours, and versions of them made worse on purpose) drives from the same logged moments twice:
in the embedded town, whose exact state goes on (`ResumedTown`), and in imagination. Both are scored by the
same function over the same goal and time. Compared are the planners' means over the starts that imagination
dares to score. Interrupted, the same command goes on; fidelity.json and fidelity.svg are written at the end.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from drivesim.build import BATCH_PLANNERS, make_controller
from drivesim.carla_server.embedded import EmbeddedServer
from drivesim.config import ConfigError, nearest
from drivesim.datatypes import Episode, default_rig
from drivesim.drive import PLAN_PERIOD_S, Driver, run_episode
from drivesim.episodes import load_episode, save_episode
from drivesim.interfaces import Planner
from drivesim.logs.truth import readouts
from drivesim.models.imagination import Imagination
from drivesim.runs import code_version, write_json
from drivesim.scoring.outcome import score
from drivesim.suite.files import Job
from drivesim.suite.imagined import (
    ImaginedConfig,
    LoggedWorld,
    open_drives,
    trust_of,
    with_trust,
)
from drivesim.suite.imagining import Everybody, OneByOne, drive_batch
from drivesim.suite.trust import Trust, start_of
from drivesim.town.state import TownState
from drivesim.worlds.carla_world import CarlaWorld
from drivesim.worlds.resumed_town import ResumedTown, TownStart
from eval.agreement import planner_means, with_intervals
from eval.worsened import contestants

Array = NDArray[np.float64]
Floats = NDArray[np.float32]
NEAR_M = 25.0
SPEED_DRIVES = 256
CARLA_SECONDS = 8.0
TRUSTED = Trust(0.0, 0.0, 0.0, "")
Tell = Callable[[str], None]


def eventful(world: LoggedWorld, scenario_id: str) -> bool:
    """Whether within the drive's time a lead is near, a light is closed or somebody walks ahead: by the log's truth."""
    log_name, k = start_of(scenario_id)
    for frame in world.drives[log_name].frames[k : k + world.config.steps + 1]:
        seen = readouts(frame)
        near = seen["lead_present"] > 0.5 and seen["lead_gap"] < NEAR_M
        if near or seen["red_light"] > 0.5 or seen["walker_ahead"] > 0.5:
            return True
    return False


def choose_starts(world: LoggedWorld, count: int, share: float) -> None:
    """Keep `count` starts, `share` of them eventful where there are so many, each kind spread over all logs.

    On an empty road planners differ by their speed alone, and any world without eyes ranks them.
    """
    busy = [i for i in world.starts if eventful(world, i)]
    calm = [i for i in world.starts if i not in set(busy)]
    wanted = min(round(share * count), len(busy))
    rest = min(count - wanted, len(calm))
    kept = set(_spread(busy, min(count - rest, len(busy))) + _spread(calm, rest))
    world.starts = {i: start for i, start in world.starts.items() if i in kept}


def _spread(items: list[str], count: int) -> list[str]:
    return [items[int(i)] for i in np.linspace(0, len(items) - 1, count).round()] if count else []


def town_starts(world: LoggedWorld) -> dict[str, TownStart]:
    """The same moments in the embedded town."""
    found = {}
    for scenario_id, start in world.starts.items():
        log_name, k = start_of(scenario_id)
        log, tick = world.logs[log_name], int(world.drives[log_name].ticks[k])
        found[scenario_id] = TownStart(
            start.scenario, lambda log=log, tick=tick: log.state(tick, TownState), int(log.attrs["ego_row"]),  # type: ignore[misc]
            start.route, start.s_m, int(log.attrs.get("appearance_seed", 0) or 0),
        )  # fmt: skip
    return found


def drive_truly(world: LoggedWorld, name: str, make: Callable[[], Planner], out: Path, tell: Tell) -> list[Episode]:
    """One planner from all starts in the embedded town, with cameras only where it looks; what is there is read."""
    planner, starts = make(), town_starts(world)
    period_s = PLAN_PERIOD_S if planner.needs_images else 1e9
    town = ResumedTown(starts, default_rig() if planner.needs_images else None, camera_period_s=period_s)
    episodes = []
    for scenario_id, start in starts.items():
        path = Job(start.scenario, name, 0).path(out / "true")
        if path.is_file() and (found := load_episode(path)).scenario == start.scenario:
            episodes.append(found)
            continue
        driver = Driver(planner, make_controller(), default_rig())
        episode = replace(run_episode(town, driver, start.scenario, 0), planner=name)
        if episode.error:
            raise RuntimeError(f"{name} from {scenario_id}: {episode.error}")
        save_episode(episode, path)
        episodes.append(episode)
    tell(f"{name:<24} true     {mean_score(episodes):6.1f}  {seconds_of(episodes) / wall_of(episodes):8.2f} s/s")
    return episodes


def imagine(
    world: LoggedWorld, name: str, make: Callable[[], Planner], seeds: int, out: Path, sight: Any, tell: Tell,
    control: Standstill | None = None,
) -> list[Episode]:  # fmt: skip
    """One planner from all starts in imagination, once a seed; what is there is read.

    Args:
        control: drive in this instead of the model; nothing is asked about trust then.
    """
    encoder, episodes, left = world.model.digest, [], []
    for scenario_id, start in world.starts.items():
        for seed in range(seeds):
            path = Job(start.scenario, name, seed).path(out)
            found = load_episode(path) if path.is_file() else None
            if found is not None and found.scenario == start.scenario and found.provenance.get("encoder") == encoder:
                episodes.append(found)
            else:
                left.append((scenario_id, seed))
    batched = name in BATCH_PLANNERS
    runner = Everybody(BATCH_PLANNERS[name](world.model)) if batched else OneByOne(name, make, sight)
    for first in range(0, len(left), world.config.batch):
        piece = left[first : first + world.config.batch]
        imagined = drive_batch(world.batch([i for i, _ in piece], [s for _, s in piece], control), runner)
        trusts = world.trusts(imagined) if control is None else [TRUSTED] * len(piece)
        for episode, trust in zip(imagined.episodes, trusts, strict=True):
            whole = with_trust(replace(episode, planner=name), trust)
            save_episode(whole, Job(whole.scenario, name, whole.seed).path(out))
            episodes.append(whole)
    valid = sum(trust_of(episode).valid for episode in episodes)
    pace = seconds_of(episodes) / wall_of(episodes)
    kind = "imagined" if control is None else "control "
    tell(f"{name:<24} {kind} {mean_score(episodes):6.1f}  {pace:8.2f} s/s  {valid}/{len(episodes)} trusted")
    return episodes


class Standstill:
    """The control: nothing is imagined. The latent stays what it was, and nobody is ever hit.

    What fidelity is left is that of analytic ego motion and of the route alone: progress tells planners apart
    without any vision, so a latent world has to be better than this.
    """

    def __init__(self, model: Imagination) -> None:
        self._model = model
        self.digest, self.readouts = model.digest, model.readouts

    def rollout(self, previous: Floats, current: Floats, actions: Array, speed_mps: Array) -> tuple[Floats, Floats]:
        """The same latents."""
        steps = actions.shape[1]
        return np.repeat(current[:, None], steps, axis=1), np.zeros((len(current), steps), np.float32)

    def risks(self, anchor: Floats, imagined: Floats, kinematics: Floats) -> Floats:
        """None."""
        return np.zeros((len(anchor), 3), np.float32)

    def read(self, previous: Floats, current: Floats) -> Floats:
        """What was there at the start."""
        return self._model.read(previous, current)

    def acceleration(self, previous: Floats, current: Floats, kinematics: Floats, head: str) -> Array:
        """Of the same policy."""
        return self._model.acceleration(previous, current, kinematics, head)


def mean_score(episodes: Sequence[Episode]) -> float:
    """Mean driving score of episodes, trusted or not."""
    return float(np.mean([driving_score(episode) for episode in episodes]))


def driving_score(episode: Episode) -> float:
    """CARLA Leaderboard 2.1."""
    return float(score(episode).value("driving_score") or 0.0)


def seconds_of(episodes: Sequence[Episode]) -> float:
    """Simulated seconds."""
    return float(sum((e.times_us[-1] - e.times_us[0]) * 1e-6 for e in episodes))


def wall_of(episodes: Sequence[Episode]) -> float:
    """Seconds that driving them took, planning included."""
    return max(sum(float(episode.provenance.get("wall_s", 0.0)) for episode in episodes), 1e-6)


def score_tables(
    names: Sequence[str], starts: Sequence[str], true: dict[str, list[Episode]], imagined: dict[str, list[Episode]]
) -> tuple[Array, Array, Array]:
    """True and imagined scores (planners, starts) and the share (planners, starts) of trusted seeds.

    An imagined score is the mean over the trusted seeds, and 0 where there are none.
    """
    shape = len(names), len(starts)
    column = {scenario_id: k for k, scenario_id in enumerate(starts)}
    truth, guess, trusted, seeds = np.zeros(shape), np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for row, name in enumerate(names):
        for episode in true[name]:
            truth[row, column[episode.scenario.id]] = driving_score(episode)
        for episode in imagined[name]:
            k = column[episode.scenario.id]
            seeds[row, k] += 1.0
            if trust_of(episode).valid:
                trusted[row, k] += 1.0
                guess[row, k] += driving_score(episode)
    return truth, guess / np.maximum(trusted, 1.0), trusted / np.maximum(seeds, 1.0)


def speeds(world: LoggedWorld, sight: Any, makers: dict[str, Callable[[], Planner]], tell: Tell) -> dict[str, Any]:
    """Simulated seconds per second, embedded town with cameras against imagination, one after the other, now.

    Planning and scoring are part of all; the town's pictures are rendered for the planner that looks at them.
    "rendered" is the town in process, "rendered_through_carla" the same with its server and the carla client, as
    `drivesim evaluate` drives.
    """
    ids, figures = list(world.starts), {}
    town, name = ResumedTown(town_starts(world), default_rig(), camera_period_s=PLAN_PERIOD_S), "latent-policy"
    planner, few = makers[name](), ids[:: max(len(ids) // 3, 1)][:3]
    many, began = [ids[k % len(ids)] for k in range(SPEED_DRIVES)], 0.0
    log = next(drive for drive in world.drives.values()).scenario
    scenario = replace(log, time_limit_s=CARLA_SECONDS, traffic_vehicles=20, traffic_walkers=10)

    def rendered() -> float:
        episodes = [
            run_episode(town, Driver(planner, make_controller(), default_rig()), world.starts[i].scenario, 0)
            for i in few
        ]
        for episode in episodes:
            score(episode)
        return seconds_of(episodes)

    def imagined(runner: Everybody | OneByOne, drives: list[str]) -> float:
        found = drive_batch(world.batch(drives, list(range(len(drives)))), runner)
        for episode in found.episodes:
            score(episode)
        return found.simulated_s

    batched = Everybody(BATCH_PLANNERS[name](world.model))
    single = OneByOne("latent", makers["latent"], sight)

    def through_carla() -> float:
        with EmbeddedServer(scenario.town) as (host, port):
            carla = CarlaWorld(host, port, rig=default_rig(), camera_period_s=PLAN_PERIOD_S)
            carla.reset(scenario, 0)  # the town is loaded and painted once before the clock starts
            nonlocal began
            began = time.perf_counter()
            episode = run_episode(carla, Driver(planner, make_controller(), default_rig()), scenario, 0)
            score(episode)
            carla.close()
        return seconds_of([episode])

    rendered(), imagined(batched, many[:8])  # compiled and warm
    for label, work in (
        ("rendered", rendered),
        ("rendered_through_carla", through_carla),
        ("imagined_batch", lambda: imagined(batched, many)),
        ("imagined_latent_planner", lambda: imagined(single, ids[:4])),
    ):
        began = time.perf_counter()
        simulated = work()
        figures[f"{label}_s_per_s"] = simulated / (time.perf_counter() - began)
        tell(f"speed: {label:<24} {figures[f'{label}_s_per_s']:10.2f} simulated s/s")
    for rendering in ("rendered", "rendered_through_carla"):
        figures[f"times_faster_than_{rendering}"] = figures["imagined_batch_s_per_s"] / figures[f"{rendering}_s_per_s"]
    return {**figures, "planner": name, "imagined_drives": SPEED_DRIVES, "rendered_drives": len(few)}


def study(
    logs: Path, out: Path, config: ImaginedConfig, seeds: int, checkpoint: Path | None, names: Sequence[str],
    tell: Tell, *, count: int = 24, share: float = 0.7,
) -> dict[str, Any]:  # fmt: skip
    """Run what is not there yet, compare, write fidelity.json and fidelity.svg.

    Args:
        count: starts; share: how many of them shall be eventful.

    Raises:
        ConfigError: an unknown planner, or logs without the embedded world's state.
    """
    from drivesim.build import load_world_model
    from eval.scatter import scatter

    makers = contestants(checkpoint)
    for name in names:
        if name not in makers:
            raise ConfigError(f"unknown planner {name!r}: {nearest(name, makers)}")
    world = LoggedWorld([log for log in open_drives(logs) if log.has_state], checkpoint, config, out / "latents")
    choose_starts(world, count, share)
    sight, started = load_world_model(checkpoint), time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    tell(f"{len(world.drives)} logs, {len(world.starts)} starts, drift {world.gauge.table.drift(config.steps):.2f}")
    still = Standstill(Imagination(sight))
    true, imagined, control = {}, {}, {}
    for name in names:
        imagined[name] = imagine(world, name, makers[name], seeds, out / "imagined", sight, tell)
        control[name] = imagine(world, name, makers[name], 1, out / "control", sight, tell, still)
        true[name] = drive_truly(world, name, makers[name], out, tell)
    starts = list(world.starts)
    truth, guess, trusted = score_tables(names, starts, true, imagined)
    means = planner_means(truth, guess, trusted)
    everything = score_tables(names, starts, true, all_trusted(imagined))
    without = score_tables(names, starts, true, control)[1]
    result: dict[str, Any] = {
        "study": "fidelity", "command": "python -m eval.fidelity", "commit": code_version(), "started": started,
        "encoder": world.model.digest, "logs": sorted(world.drives), "starts": len(world.starts), "seeds": seeds,
        "eventful_starts": sum(eventful(world, i) for i in world.starts),
        "seconds": config.seconds, "goal_m": config.goal_m,
        "drift_by_step": world.gauge.table.curve().tolist(),
        "trusted": with_intervals(truth, guess, trusted),
        "trusted_or_not": with_intervals(*everything),
        "control_without_imagination": {
            "trusted": with_intervals(truth, without, trusted),
            "trusted_or_not": with_intervals(truth, without, np.ones_like(truth)),
        },
        "planners": {
            name: {
                "true": _number(means[0][row]), "imagined": _number(means[1][row]),
                "true_all": float(truth[row].mean()), "imagined_all": float(everything[1][row].mean()),
                "control_all": float(without[row].mean()),
                "trusted_share": float(trusted[row].mean()),
                "rendered": makers[name]().needs_images,
                "true_s_per_s": seconds_of(true[name]) / wall_of(true[name]),
                "imagined_s_per_s": seconds_of(imagined[name]) / wall_of(imagined[name]),
            }
            for row, name in enumerate(names)
        },
        "speed": speeds(world, sight, makers, tell),
    }  # fmt: skip
    write_json(out / "fidelity.json", result)
    (out / "fidelity.svg").write_text(scatter(result), encoding="utf-8")
    return result


def all_trusted(imagined: dict[str, list[Episode]]) -> dict[str, list[Episode]]:
    """As if imagination never abstained."""
    return {name: [with_trust(episode, TRUSTED) for episode in episodes] for name, episodes in imagined.items()}


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("logs", type=Path, help="folder of logs of the embedded world (`drivesim record`)")
    parser.add_argument("--out", type=Path, default=Path("runs/fidelity"))
    parser.add_argument("--checkpoint", type=Path, default=None, help="world model; the shipped one by default")
    parser.add_argument("--starts", type=int, default=24, help="logged moments, spread over all logs")
    parser.add_argument("--eventful", type=float, default=0.7, help="share of them with a lead, red light or walker")
    parser.add_argument("--seeds", type=int, default=4, help="imagined drives of each planner from each start")
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--goal", type=float, default=40.0, help="metres along the route that count as all of it")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1, help="of torch; more pay only where cores are idle")
    parser.add_argument("--planner", action="append", help="only this one; repeat for more (all by default)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    config = ImaginedConfig(options.seconds, options.goal, 1.0, 0, options.batch)
    names = options.planner or list(contestants(options.checkpoint))
    result = study(
        options.logs, options.out, config, options.seeds, options.checkpoint, names,
        lambda line: print(line, flush=True), count=options.starts, share=options.eventful,
    )  # fmt: skip
    print(f"trusted: {result['trusted']}\nwritten to {options.out / 'fidelity.json'} and fidelity.svg")


if __name__ == "__main__":
    main()
