"""A logged drive as the place where imagination starts: its latents, its motion, and starts along it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from drivesim.datatypes import CameraRig, EgoState, Frame, Scenario
from drivesim.geometry import Polyline
from drivesim.geometry.bicycle import actions_from_motion
from drivesim.worlds.imagined_batch import STEP_S, Floats, ImaginationCore, LatentStart
from drivesim.worlds.routes import RoutePlan, plan_route
from drivesim.worlds.town_world import picture, town_renderer

Array = NDArray[np.float64]
Encode = Callable[[NDArray[np.uint8], CameraRig, EgoState], Floats]

BEHIND_M, BEYOND_M = 6.0, 110.0  # of the route, kept around an imagined drive
LANE_HALF_WIDTH_M = 1.75  # where a log does not say
SPARSE = 0.2  # a tick may be this share of a step off its half second


class LoggedDrive(Protocol):
    """What is read of a log (`drivesim.logs.DriveLog` has it)."""

    path: Path
    attrs: dict[str, Any]
    times_us: NDArray[np.int64]

    @property
    def scenario(self) -> Scenario | None:
        """What was driven."""
        ...

    def frame(self, i: int) -> Frame:
        """Tick i."""
        ...

    def state(self, i: int, kind: type[Any]) -> Any:
        """The embedded world's state at tick i."""
        ...

    @property
    def has_state(self) -> bool:
        """Whether there is one."""
        ...


class UnusableDrive(ValueError):  # noqa: N818
    """A log that imagination cannot start from; the message says why."""


@dataclass(frozen=True)
class EncodedDrive:
    """A log at latent ticks.

    Attributes:
        name: of the log.
        ticks: (t,) rows of the log, half a second apart.
        frames: without pictures.
        latents: (t, n, d).
        actions: (t - 1, 2) driven from each tick to the next.
        route, s_m: the whole route and the ego's places (t,) on it.
    """

    name: str
    scenario: Scenario
    ticks: NDArray[np.int64]
    frames: list[Frame]
    latents: Floats
    actions: Array
    route: RoutePlan
    s_m: Array

    @property
    def speeds_mps(self) -> Array:
        """(t,)."""
        return np.array([frame.ego.speed_mps for frame in self.frames])


def latent_ticks(times_us: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows of a log nearest to every half second, up to the first gap.

    Raises:
        UnusableDrive: fewer than three.
    """
    wanted = np.arange(times_us[0], times_us[-1] + 1, round(STEP_S * 1e6))
    rows = np.array([int(np.argmin(np.abs(times_us - t))) for t in wanted], np.int64)
    missed = np.abs(times_us[rows] - wanted) > SPARSE * STEP_S * 1e6
    rows = rows[: int(np.argmax(missed))] if missed.any() else rows
    if len(rows) < 3:
        raise UnusableDrive(f"a drive needs ticks at {1 / STEP_S:g} Hz for a second or more; this one has {len(rows)}")
    return rows


def pictures(log: LoggedDrive, i: int, frame: Frame, rig: CameraRig) -> NDArray[np.uint8]:
    """Pictures (v, h, w, 3) of a tick: as logged, or rendered again from the embedded world's state.

    Raises:
        UnusableDrive: the log has neither.
    """
    if frame.images is not None:
        return frame.images
    if not log.has_state:
        raise UnusableDrive(f"{log.path} has neither pictures nor the embedded world's state: nothing to encode")
    from drivesim.town.render import Appearance
    from drivesim.town.state import TownState

    state = log.state(i, TownState)
    look = Appearance.from_weather(state.weather, int(log.attrs.get("appearance_seed", 0) or 0))
    renderer = town_renderer(str(log.attrs["town"]))
    return picture(renderer, state, int(log.attrs["ego_row"]), frame.ego.world_from_ego, rig, look, int(state.tick[0]))


def encode_drive(
    log: LoggedDrive, rig: CameraRig, encode: Encode, look: Callable[[int, Frame], NDArray[np.uint8]] | None = None
) -> EncodedDrive:
    """Encode a log at latent ticks.

    Args:
        look: pictures of a row of the log, instead of what it holds or its state renders to.

    Raises:
        UnusableDrive: too short, too sparse, nothing to see, or no route to follow.
    """
    ticks = latent_ticks(log.times_us)
    frames, latents = [], []
    for i in ticks.tolist():
        frame = log.frame(i)
        seen = look(i, frame) if look is not None else pictures(log, i, frame, rig)
        latents.append(encode(seen, rig, frame.ego))
        frames.append(replace(frame, images=None))
    return _joined(log, ticks, frames, np.stack(latents))


def encoded_before(log: LoggedDrive, latents: Floats) -> EncodedDrive:
    """A drive whose latents (t, n, d) are known already.

    Raises:
        UnusableDrive: they are not those of this log.
    """
    ticks = latent_ticks(log.times_us)
    if len(latents) != len(ticks):
        raise UnusableDrive(f"{log.path}: {len(latents)} latents for {len(ticks)} ticks")
    return _joined(log, ticks, [replace(log.frame(i), images=None) for i in ticks.tolist()], latents)


def _joined(log: LoggedDrive, ticks: NDArray[np.int64], frames: list[Frame], latents: Floats) -> EncodedDrive:
    poses = np.array([[f.ego.x_m, f.ego.y_m, f.ego.yaw_rad] for f in frames])
    actions = actions_from_motion(poses, np.array([f.ego.speed_mps for f in frames]), STEP_S)
    scenario = log.scenario
    route = plan_route(scenario) if scenario is not None else route_of_frames(frames)
    places, near = [], max(route.length_m - frames[0].route.remaining_m, 0.0) if scenario is not None else 0.0
    for frame in frames:
        near = route.project(frame.ego.x_m, frame.ego.y_m, near)[0]
        places.append(near)
    name = log.path.name.removesuffix(".zarr")
    if scenario is None:
        scenario = Scenario(name, str(log.attrs.get("town") or ""), "a logged drive", (), 0.0)
    return EncodedDrive(
        name, scenario, ticks, frames, latents, np.clip(actions, [-8.0, -0.3], [5.0, 0.3]), route, np.array(places)
    )


def route_of_frames(frames: list[Frame]) -> RoutePlan:
    """A log's own route, pieced together from what each tick knew of the road ahead.

    Raises:
        UnusableDrive: the ticks know no route.
    """
    points: list[Array] = []
    limits: list[Array] = []
    for frame in frames:
        known = frame.route
        if len(known.points_m) < 2:
            continue
        world = frame.ego.world_from_ego.apply(np.pad(known.points_m, ((0, 0), (0, 1))))[:, :2]
        first = int(np.argmin(np.linalg.norm(world - points[-1][-1], axis=1))) + 1 if points else 0
        if first < len(world):
            points.append(world[first:])
            limits.append(known.speed_limit_mps[first:])
    if not points:
        raise UnusableDrive("the drive has no route: record it along one")
    line = Polyline.from_points(np.concatenate(points))
    s = np.arange(0.0, line.length_m, 1.0)
    curve = Polyline.from_points(line.at(s)[:, :2])
    found = np.concatenate(limits)
    limit = found[np.minimum(np.arange(len(s)), len(found) - 1)]
    half = np.full(len(s), LANE_HALF_WIDTH_M)
    return RoutePlan(curve, np.full(len(s), frames[0].ego.z_m), limit, half, curve.length_m, ())


def cut_route(route: RoutePlan, s_m: float, goal_m: float) -> tuple[RoutePlan, float]:
    """The part of a route around an imagined drive, its goal `goal_m` ahead, and the ego's place on it."""
    first = max(int(s_m - BEHIND_M), 0)
    last = min(int(s_m + goal_m + BEYOND_M) + 1, len(route.curve.s_m))
    curve = Polyline.from_points(route.curve.points_m[first:last])
    here = s_m - float(route.curve.s_m[first])
    rows = slice(first, first + len(curve.s_m))
    length = min(here + goal_m, curve.length_m)
    part = RoutePlan(curve, route.z_m[rows], route.speed_limit_mps[rows], route.half_width_m[rows], length, route.lanes)
    return part, here


def news_of(model: ImaginationCore, drive: EncodedDrive) -> Floats:
    """What each half second of a log brought that the predictor did not expect: (t - 1, n, d), zero for the first."""
    z = drive.latents
    news = np.zeros_like(z[1:])
    if len(z) > 2:
        told, _ = model.rollout(z[:-2], z[1:-1], drive.actions[1:, None], drive.speeds_mps[1:-1])
        news[1:] = z[2:] - told[:, 0]
    return news


def start_at(drive: EncodedDrive, k: int, seconds: float, goal_m: float, news: Floats | None = None) -> LatentStart:
    """The start at latent tick k of a drive.

    Args:
        seconds: time limit of the imagined drive.
        goal_m: its goal, so far along the route.
        news: of the whole drive, from `news_of`.

    Raises:
        UnusableDrive: k has no tick before it.
    """
    if not 1 <= k < len(drive.frames):
        raise UnusableDrive(f"{drive.name}: tick {k} of {len(drive.frames)} has no tick before it")
    route, here = cut_route(drive.route, float(drive.s_m[k]), goal_m)
    scenario = replace(
        drive.scenario, id=f"{drive.name}@{k}", time_limit_s=seconds, dt_s=0.05, actors=(), tags=("imagined",),
        initial_speed_mps=max(drive.frames[k].ego.speed_mps, 0.0),
    )  # fmt: skip
    logged = drive.frames[k : k + int(seconds / STEP_S) + 1]
    return LatentStart(
        scenario, route, here, drive.frames[k], drive.latents[k - 1], drive.latents[k], logged,
        None if news is None else news[k : k + len(logged) - 1],
    )  # fmt: skip
