"""A logged drive in latent space: encode it, imagine it, compare with what came, try one other action."""

from __future__ import annotations

import io
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from drivesim.build import load_world_model
from drivesim.datatypes import CameraRig, Frame, default_rig
from drivesim.geometry.bicycle import actions_from_motion, rollout
from drivesim.logs import DriveLog, LogError
from drivesim.logs.truth import readouts
from drivesim.models import SHIPPED, WorldModel
from drivesim.models.critic import TransitionCritic, critic_beside
from drivesim.planning.proposals import STEP_S
from drivesim.reports.replay_page import Counterfactual, Forecasts, ReplayData, replay_report
from drivesim.town.towns import road_network

Array = NDArray[np.float64]
HORIZON = 8  # latent ticks: 4 s
BRAKE_MPS2 = -4.0
GAP_SHOWN_M = 40.0
CRITIC_LINE = "impossible, says the critic"


@dataclass(frozen=True)
class Encoded:
    """A drive at latent ticks: frames, pictures, latents, and the actions between them."""

    frames: list[Frame]
    ticks: list[int]
    images: list[NDArray[np.uint8]]
    latents: NDArray[np.float32]
    actions: Array

    @property
    def times_s(self) -> Array:
        """Seconds since the first tick."""
        first = self.frames[0].time_us
        return np.array([(frame.time_us - first) * 1e-6 for frame in self.frames])


def latent_ticks(times_us: NDArray[np.int64]) -> list[int]:
    """Ticks nearest to every half second of a log.

    Raises:
        LogError: the log is sampled too sparsely or is too short.
    """
    wanted = np.arange(times_us[0], times_us[-1] + 1, round(STEP_S * 1e6))
    ticks = [int(np.argmin(np.abs(times_us - t))) for t in wanted]
    if len(set(ticks)) != len(ticks) or len(ticks) < HORIZON + 3:
        least_s = (HORIZON + 3) * STEP_S
        raise LogError(
            f"a replay needs {least_s:g} s at {1 / STEP_S:g} Hz or more; this log has less: record a longer one"
        )
    return ticks


def rig_of(log: DriveLog) -> CameraRig:
    """The log's cameras; for a log of states alone the default ring, since it is rendered here."""
    return log.rig if log.has_images else default_rig()


def pictures(log: DriveLog, i: int, frame: Frame, rig: CameraRig) -> NDArray[np.uint8]:
    """Pictures of a tick: as logged, or rendered from the embedded world's state.

    Raises:
        LogError: the log has neither.
    """
    if frame.images is not None:
        return frame.images
    if not log.has_state:
        raise LogError(f"{log.path} has neither pictures nor the embedded world's state: there is nothing to encode")
    from drivesim.recording.branches import stage
    from drivesim.recording.rendering import render_tick

    _, renderer = stage(str(log.attrs["town"]))
    return render_tick(log, i, renderer, rig)


def encode_log(log: DriveLog, model: WorldModel) -> Encoded:
    """Encode a log at latent ticks.

    Raises:
        LogError: too short, too sparse, or recorded by another rig than the model's.
    """
    rig = rig_of(log)
    if rig.digest != model.rig_digest:
        raise LogError(
            f"{log.path} was recorded by rig {rig.digest}, the checkpoint was trained for {model.rig_digest}: "
            "name a checkpoint of that rig with --checkpoint"
        )
    ticks = latent_ticks(log.times_us)
    frames = [log.frame(i) for i in ticks]
    images = [pictures(log, i, frame, rig) for i, frame in zip(ticks, frames, strict=True)]
    latents = np.stack([model.encode(image, rig, f.ego).tokens for image, f in zip(images, frames, strict=True)])
    poses = np.array([[f.ego.x_m, f.ego.y_m, f.ego.yaw_rad] for f in frames])
    actions = actions_from_motion(poses, np.array([f.ego.speed_mps for f in frames]), STEP_S)
    return Encoded(frames, ticks, images, latents, np.clip(actions, [-8.0, -0.3], [5.0, 0.3]))


def surprise(drive: Encoded, model: WorldModel) -> tuple[dict[str, Array], NDArray[np.float32]]:
    """Prediction error over the mean step of the latent, one step and 4 s ahead, and the imagined futures.

    Returns:
        name -> (T,), stamped with the tick that surprised (NaN where there is none); and (T, 8, n, d)
        imagined latents from every tick with a past and a future (zeros elsewhere).
    """
    z, count = drive.latents, len(drive.latents)
    futures = np.zeros((count, HORIZON, *z.shape[1:]), np.float32)
    for t in range(1, count):
        steps = min(HORIZON, count - 1 - t)
        if steps > 0:
            taken = drive.actions[None, t : t + steps]
            futures[t, :steps] = model.rollout(z[t - 1 : t + 1], drive.frames[t].ego.speed_mps, taken)[0]
    typical = float(np.sqrt(np.square(np.diff(z, axis=0)).mean())) + 1e-6
    one, far = np.full(count, np.nan), np.full(count, np.nan)
    for t in range(2, count):
        one[t] = np.sqrt(np.square(futures[t - 1, 0] - z[t]).mean()) / typical
        if t - HORIZON >= 1:
            far[t] = np.sqrt(np.square(futures[t - HORIZON, HORIZON - 1] - z[t]).mean()) / typical
    return {"1 step (0.5 s)": one, "4 s": far}, futures


def doubted(drive: Encoded, model: WorldModel, critic: TransitionCritic) -> Array:
    """What the critic makes of every tick, (T,): probability that it could not follow; NaN for the first two."""
    speeds = np.array([frame.ego.speed_mps for frame in drive.frames])
    return critic.along(model, drive.latents, drive.actions, speeds)


def principal_colors(latents: NDArray[np.float32]) -> Array:
    """First three principal components of all tokens as colours (T, n, 3) in [0, 1], scaled by their 2 % tails."""
    flat = latents.reshape(-1, latents.shape[-1]).astype(np.float64)
    centred = flat - flat.mean(0)
    _, _, axes = np.linalg.svd(centred[:: max(1, len(centred) // 4000)], full_matrices=False)
    parts = centred @ axes[:3].T
    low, high = np.percentile(parts, [2, 98], axis=0)
    scaled = np.clip((parts - low) / np.maximum(high - low, 1e-9), 0.0, 1.0)
    return np.asarray(scaled.reshape(*latents.shape[:2], 3))


def gap_read(model: WorldModel, before: NDArray[np.float32], after: NDArray[np.float32]) -> float:
    """Lead gap that the probe reads from two successive latents; NaN where it sees no lead."""
    read = model.readout(before, after, np.zeros(16, np.float32))
    return float(max(read["lead_gap"], 0.0)) if read["lead_present"] > 0.0 else float("nan")


def true_gap(frame: Frame) -> float:
    """Lead gap of a frame; NaN where there is none within sight."""
    found = readouts(frame)
    return float(found["lead_gap"]) if found["lead_present"] > 0.5 else float("nan")


def forecasts(drive: Encoded, model: WorldModel, futures: NDArray[np.float32]) -> Forecasts:
    """Every second tick: the imagined path and lead gap against what came."""
    moments = list(range(1, len(drive.frames) - HORIZON, 2)) or [1]
    horizon_s = (np.arange(HORIZON) + 1) * STEP_S
    gaps_true = [true_gap(frame) for frame in drive.frames]
    imagined_path, actual_path, gaps, came = [], [], [], []
    for t in moments:
        ego = drive.frames[t].ego
        path, _ = rollout(ego.speed_mps, drive.actions[None, t : t + HORIZON], STEP_S)
        imagined_path.append(path[0, :, :2])
        later = np.array([[f.ego.x_m, f.ego.y_m, 0.0] for f in drive.frames[t + 1 : t + 1 + HORIZON]])
        later[:, 2] = ego.z_m
        actual_path.append(ego.world_from_ego.inverse().apply(later)[:, :2])
        chain = [drive.latents[t], *futures[t]]
        gaps.append([gap_read(model, a, b) for a, b in pairwise(chain)])
        came.append(gaps_true[t + 1 : t + 1 + HORIZON])
    shaped = {"lead_gap_m": (np.array(gaps), np.array(came))}
    return Forecasts(drive.times_s[moments], horizon_s, np.array(imagined_path), np.array(actual_path), shaped)


def brake_moment(drive: Encoded, brake_at_s: float | None) -> int:
    """The tick to branch at: the nearest to the wish, else the closest lead at speed."""
    last = len(drive.frames) - HORIZON - 1
    if brake_at_s is not None:
        return int(np.clip(np.argmin(np.abs(drive.times_s - brake_at_s)), 1, max(1, last)))
    gaps = np.array([true_gap(f) if f.ego.speed_mps > 3.0 else np.nan for f in drive.frames[: last + 1]])
    gaps[0] = np.nan
    return int(np.nanargmin(gaps)) if np.isfinite(gaps).any() else max(1, last // 2)


def true_branch(log: DriveLog, drive: Encoded, t: int, profile: Array) -> Array | None:
    """What the embedded world says: lead gap (8,) of the same state under another action; None without its state."""
    if not log.has_state:
        return None
    from drivesim.recording.branches import branch_readouts, drive_branch, stage
    from drivesim.town.state import TownState

    town, _ = stage(str(log.attrs["town"]))
    row, frame = int(log.attrs["ego_row"]), drive.frames[t]
    after, _ = drive_branch(town, log.state(drive.ticks[t], TownState), row, frame.ego, frame.route, profile)
    gaps = np.array([branch_readouts(town, state, row, ego, frame)[0] for state, ego in after])
    return np.where(gaps < GAP_SHOWN_M, gaps, np.nan)


def counterfactual(log: DriveLog, drive: Encoded, model: WorldModel, brake_at_s: float | None) -> Counterfactual:
    """Brake instead, in imagination, beside what was driven and, where it can be had, the exact branch."""
    t = brake_moment(drive, brake_at_s)
    ego = drive.frames[t].ego
    profile = np.full(HORIZON, BRAKE_MPS2)
    speeds = np.maximum(ego.speed_mps + np.cumsum(np.concatenate([[0.0], profile])) * STEP_S, 0.0)
    brake = np.stack([np.diff(speeds) / STEP_S, drive.actions[t : t + HORIZON, 1]], axis=-1)
    lines: dict[str, Array] = {}
    for name, actions in (("as driven, imagined", drive.actions[t : t + HORIZON]), ("brake, imagined", brake)):
        future = model.rollout(drive.latents[t - 1 : t + 1], ego.speed_mps, actions[None])[0]
        chain = [drive.latents[t], *future]
        lines[name] = np.array([gap_read(model, a, b) for a, b in pairwise(chain)])
    lines["as driven, true"] = np.array([true_gap(f) for f in drive.frames[t + 1 : t + 1 + HORIZON]])
    branch = true_branch(log, drive, t, profile)
    if branch is not None:
        lines["brake, true"] = branch
    speed = {
        "as driven": np.array([f.ego.speed_mps for f in drive.frames[t + 1 : t + 1 + HORIZON]]),
        "brake": speeds[1:],
    }
    series = {"lead_gap_m": lines, "speed_mps": speed}
    times = (np.arange(HORIZON) + 1) * STEP_S
    return Counterfactual(float(drive.times_s[t]), f"brake at {-BRAKE_MPS2:g} m/s²", times, series)


def strip(images: NDArray[np.uint8], height_px: int = 108) -> bytes:
    """All cameras of a tick side by side as one JPEG."""
    wide = Image.fromarray(np.concatenate(list(images), axis=1))
    scale = height_px / wide.height
    buffer = io.BytesIO()
    wide.resize((round(wide.width * scale), height_px), Image.Resampling.BILINEAR).save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def boxes(frame: Frame) -> Array:
    """Actors (m, 5) x, y, yaw, length, width in the world frame."""
    actors = frame.actors
    return np.column_stack([actors.pose[:, :2], actors.pose[:, 3], actors.size_m[:, :2]])


def replay_data(
    log: DriveLog, model: WorldModel, brake_at_s: float | None, critic: TransitionCritic | None = None
) -> ReplayData:
    """Everything that the page shows; what the critic says where the checkpoint has one."""
    drive = encode_log(log, model)
    errors, futures = surprise(drive, model)
    if critic is not None:
        errors = {CRITIC_LINE: doubted(drive, model, critic)} | errors
    ego = np.array([
        [f.ego.x_m, f.ego.y_m, f.ego.yaw_rad, f.ego.speed_mps, f.ego.acceleration_mps2] for f in drive.frames
    ])  # fmt: skip
    facts: dict[str, Any] = {
        "log": log.path.name, "town": log.attrs.get("town") or "unknown", "length": f"{drive.times_s[-1]:.1f} s",
        "encoder": model.digest, "pictures": "as logged" if log.has_images else "rendered from the logged state",
    }  # fmt: skip
    notes: tuple[str, ...] = (
        "Surprise is the root mean square error of the imagined latent over the mean change of the latent in half "
        "a second: 1 is as wrong as predicting no change.",
        "Gaps are read from latents by a probe for this page alone; the planner does not see it.",
    )
    if critic is not None:
        notes += ("The critic weighs that error against what is ordinary and against a mere change of looks: the "
                  "probability, at even odds, that the tick could not follow from the two before.",)  # fmt: skip
    return ReplayData(
        title=log.path.name, facts={key: str(value) for key, value in facts.items()}, times_s=drive.times_s, ego=ego,
        surprise=errors, latent_rgb=principal_colors(drive.latents), camera_times_s=drive.times_s,
        camera_jpegs=tuple(strip(images) for images in drive.images), forecasts=forecasts(drive, model, futures),
        counterfactual=counterfactual(log, drive, model, brake_at_s),
        actors=tuple(boxes(frame) for frame in drive.frames), town=str(log.attrs.get("town") or ""), notes=notes,
    )  # fmt: skip


def write_replay(log: Path, checkpoint: Path | None, brake_at_s: float | None, out: Path) -> Path:
    """Write the replay page of a log.

    Raises:
        LogError: the log cannot be replayed.
        drivesim.models.CheckpointError: the checkpoint cannot be used.
    """
    drive = DriveLog(log)
    model: WorldModel = load_world_model(checkpoint)
    data = replay_data(drive, model, brake_at_s, critic_beside(checkpoint or SHIPPED, model))
    network = road_network(data.town) if data.town else None
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(replay_report(data, network), encoding="utf-8")
    return out
