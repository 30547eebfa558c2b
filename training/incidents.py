"""Incidents that no drive happened to meet: somebody or something more in a logged moment, along a track of its own.

A walker crosses (some from behind a parked car), stands on the road or waits beside it, a lead brakes, somebody cuts
in or comes from the side, a light has the other colour. Drives offer such moments rarely, and rare events are what a
head on a wide latent learns by heart; here they are drawn as often as wanted. The track is known, so what would come
of every hypothetical drive is known too. Others do as the log says.

Tracks are in the ego frame of the moment (x forward, y left), laid out along the route ahead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from drivesim.datatypes import ACTOR_VEHICLE, ACTOR_WALKER, ActorStates, EgoState, Frame, LightStates
from drivesim.geometry import Polyline
from drivesim.planning.proposals import STEP_S
from drivesim.town.catalogue import MODELS
from drivesim.town.state import POLICY_KINEMATIC, TownState
from drivesim.town.town import WALKER_MODELS, Town
from drivesim.town.traffic import LAMP_BRAKE
from drivesim.worlds.carla_frames import mirrored, mirrored_yaw
from training.interventions import CARS, other_light

Array = NDArray[np.float64]
LANE_M = 3.4
BRAKES_MPS2 = -1.0  # who slows down by more than this shows it


@dataclass(frozen=True)
class Track:
    """Who, and where it is at the tick before the moment, at the moment and at every step after it.

    Attributes:
        model: row of the catalogue.
        poses: (steps + 2, 3) x, y, yaw of its box.
    """

    model: int
    poses: Array


@dataclass(frozen=True)
class Incident:
    """One thing more in the world: tracks, and lights (rows of the town) that have another colour all the while."""

    kind: str
    tracks: tuple[Track, ...] = ()
    lights: NDArray[np.int64] | None = None
    colors: NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class Scene:
    """What an incident is laid out along: the route ahead, the ego on it, and the instants (steps + 2,) in seconds.

    `near` is the share of people on foot who are near enough to matter at once.
    """

    line: Polyline
    at_m: float
    front_m: float
    speed_mps: float
    times_s: Array
    near: float = 0.6

    @staticmethod
    def of(frame: Frame, steps: int, near: float = 0.6) -> Scene:
        """The scene of a frame.

        Raises:
            ValueError: the route ahead has fewer than two points.
        """
        line = Polyline.from_points(frame.route.points_m)
        ego = frame.ego
        front = ego.rear_axle_to_center_m + 0.5 * ego.length_m
        return Scene(line, line.project(0.0, 0.0)[0], front, ego.speed_mps, STEP_S * np.arange(-1.0, steps + 1.0), near)

    def track(self, model: int, ahead_m: Array | float, left_m: Array | float, turn_rad: Array | float = 0.0) -> Track:
        """A track by distance ahead of the rear axle along the route, offset from it and heading relative to it."""
        count = len(self.times_s)
        place = self.line.at(self.at_m + np.broadcast_to(ahead_m, count))
        left = np.broadcast_to(left_m, count)
        x, y, yaw = place[:, 0] - left * np.sin(place[:, 2]), place[:, 1] + left * np.cos(place[:, 2]), place[:, 2]
        return Track(model, np.stack([x, y, yaw + np.broadcast_to(turn_rad, count)], axis=1))


def _walker(rng: np.random.Generator) -> int:
    return int(rng.choice(WALKER_MODELS))


def _car(rng: np.random.Generator) -> int:
    return int(rng.choice(CARS))


def _side(rng: np.random.Generator) -> float:
    return float(rng.choice([-1.0, 1.0]))


def _pace(rng: np.random.Generator) -> float:
    return float(rng.uniform(0.7, 1.8) if rng.random() < 0.6 else rng.uniform(1.8, 3.6))


def _ahead(scene: Scene, rng: np.random.Generator) -> float:
    """How far ahead somebody on foot is: anywhere in sight, or so near that at this speed it matters at once.

    Drivers seldom come close to people, so without the second a head knows nothing of the last metres before one.
    """
    if rng.random() < 1.0 - scene.near:
        return float(rng.uniform(5.0, 34.0))
    return scene.front_m + float(rng.uniform(0.8, 3.5 + 2.5 * scene.speed_mps))


def crossing(scene: Scene, rng: np.random.Generator) -> tuple[Track, ...]:
    """A walker crosses the road; one in four stops at its edge."""
    side, pace, center_s = _side(rng), _pace(rng), rng.uniform(-0.8, 4.5)
    away = pace * (center_s - scene.times_s)
    if rng.random() < 0.25:
        away = np.maximum(away, rng.uniform(2.2, 3.6))
    return (scene.track(_walker(rng), _ahead(scene, rng), side * away, -side * np.pi / 2),)


def emerging(scene: Scene, rng: np.random.Generator) -> tuple[Track, ...]:
    """A walker comes out from behind a parked car; behind one in three nobody does."""
    side = -1.0 if rng.random() < 0.75 else 1.0
    model, beside = _car(rng), float(rng.uniform(2.4, 3.2) + (2.6 if side > 0.0 else 0.0))
    ahead, pace, center_s = rng.uniform(7.0, 30.0), _pace(rng), rng.uniform(0.3, 4.5)
    parked = scene.track(model, ahead, side * beside, 0.0 if side < 0.0 else np.pi)
    if rng.random() < 0.33:
        return (parked,)
    beyond = ahead + 0.5 * MODELS[model].length_m + rng.uniform(0.5, 1.6)
    walker = scene.track(_walker(rng), beyond, side * pace * (center_s - scene.times_s), -side * np.pi / 2)
    return parked, walker


def standing(scene: Scene, rng: np.random.Generator) -> tuple[Track, ...]:
    """A walker stands on the road, or beside it."""
    left = rng.uniform(-1.5, 1.5) if rng.random() < 0.45 else _side(rng) * rng.uniform(2.2, 6.0)
    return (scene.track(_walker(rng), _ahead(scene, rng), left, rng.uniform(-np.pi, np.pi)),)


def strolling(scene: Scene, rng: np.random.Generator) -> tuple[Track, ...]:
    """A walker goes along the road's edge."""
    way, pace = _side(rng), _pace(rng)
    ahead = rng.uniform(5.0, 34.0) + way * pace * scene.times_s
    return (scene.track(_walker(rng), ahead, _side(rng) * rng.uniform(1.8, 5.0), 0.0 if way > 0.0 else np.pi),)


def _driven(speed_mps: float, brake_mps2: float, from_s: float, times_s: Array) -> Array:
    """Metres driven since time zero by who brakes from `from_s` on, to a stop."""
    fine = np.arange(-1.0, float(times_s[-1]) + 0.05, 0.05)
    speed = np.maximum(speed_mps - brake_mps2 * np.maximum(fine - from_s, 0.0), 0.0)
    driven = np.concatenate([[0.0], np.cumsum(0.025 * (speed[1:] + speed[:-1]))])
    return np.asarray(np.interp(times_s, fine, driven) - np.interp(0.0, fine, driven))


def lead(scene: Scene, rng: np.random.Generator) -> tuple[Track, ...]:
    """A car ahead that stands, goes on or brakes."""
    model = _car(rng)
    speed = 0.0 if rng.random() < 0.25 else max(scene.speed_mps + rng.normal(0.0, 2.0), 0.5)
    brake = rng.uniform(2.0, 8.0) if rng.random() < 0.65 else 0.0
    start = scene.front_m + rng.uniform(2.5, 28.0) + 0.5 * MODELS[model].length_m
    ahead = start + _driven(speed, brake, rng.uniform(-1.0, 2.5), scene.times_s)
    return (scene.track(model, ahead, rng.uniform(-0.3, 0.3)),)


def cutting_in(scene: Scene, rng: np.random.Generator) -> tuple[Track, ...]:
    """A car changes to the ego's lane a little way ahead, or stays beside it."""
    model, side, from_s, takes_s = _car(rng), _side(rng), rng.uniform(-1.0, 2.5), rng.uniform(1.2, 2.6)
    speed = max(scene.speed_mps + rng.uniform(-4.0, 1.0), 1.5)
    ahead = scene.front_m + rng.uniform(0.5, 14.0) + 0.5 * MODELS[model].length_m + speed * scene.times_s
    share = np.clip((scene.times_s - from_s) / takes_s, 0.0, 1.0) if rng.random() < 0.75 else 0.0 * scene.times_s
    left = side * LANE_M * (1.0 - share * share * (3.0 - 2.0 * share))
    turn = np.arctan2(np.gradient(left, STEP_S), speed)
    return (scene.track(model, ahead, left, turn),)


def from_the_side(scene: Scene, rng: np.random.Generator) -> tuple[Track, ...]:
    """A car crosses the ego's way; where nothing leads across, it would stand in a wall and is not placed."""
    side, speed, center_s = _side(rng), rng.uniform(3.0, 11.0), rng.uniform(-0.4, 4.5)
    away = side * speed * (center_s - scene.times_s)
    return (scene.track(_car(rng), rng.uniform(7.0, 30.0), away, -side * np.pi / 2),)


def oncoming(scene: Scene, rng: np.random.Generator) -> tuple[Track, ...]:
    """A car on the other side of the road; it turns nobody's head."""
    ahead = rng.uniform(8.0, 45.0) - rng.uniform(3.0, 11.0) * scene.times_s
    return (scene.track(_car(rng), ahead, LANE_M + rng.uniform(-0.3, 0.6), np.pi),)


KINDS: dict[str, tuple[float, Callable[[Scene, np.random.Generator], tuple[Track, ...]] | None]] = {
    "crossing": (0.28, crossing), "emerging": (0.12, emerging), "standing": (0.1, standing),
    "strolling": (0.05, strolling), "lead": (0.17, lead), "cutting in": (0.08, cutting_in),
    "from the side": (0.09, from_the_side), "oncoming": (0.02, oncoming), "light": (0.09, None),
}  # fmt: skip


def draw(town: Town, state: TownState, ego_row: int, scene: Scene, rng: np.random.Generator) -> Incident | None:
    """An incident by the dice; None where the dice ask for a light and there is none, or the route is too short."""
    names, shares = list(KINDS), np.array([share for share, _ in KINDS.values()])
    kind = names[int(rng.choice(len(names), p=shares / shares.sum()))]
    make = KINDS[kind][1]
    if make is not None:
        tracks = make(scene, rng)
        return Incident(kind, tracks) if scene.line.length_m - scene.at_m > 12.0 else None
    other = other_light(town, state, ego_row, rng)
    if other is None:
        return None
    rows = np.flatnonzero(other.light_state != state.light_state)
    return Incident(kind, lights=rows, colors=other.light_state[rows])


def to_world(ego: EgoState, poses: Array) -> Array:
    """Poses (..., 3) in the ego frame -> the world frame (right-handed)."""
    c, s = np.cos(ego.yaw_rad), np.sin(ego.yaw_rad)
    x, y, yaw = poses[..., 0], poses[..., 1], poses[..., 2]
    return np.stack([ego.x_m + c * x - s * y, ego.y_m + s * x + c * y, ego.yaw_rad + yaw], axis=-1)


def on_foot(track: Track) -> bool:
    """Whether it is a walker's."""
    return MODELS[track.model].base_type == "pedestrian"


def motion_of(ego: EgoState, track: Track) -> tuple[Array, Array]:
    """World poses (n, 3) and velocities (n, 2) of a track."""
    poses = to_world(ego, track.poses)
    return poses, np.gradient(poses[:, :2], STEP_S, axis=0)


def in_state(town: Town, state: TownState, ego: EgoState, incident: Incident, step: int) -> TownState | None:
    """A logged state with the incident in it, `step` of its tracks; None where somebody or something is in its place.

    Args:
        ego: the ego at the moment whose frame the tracks are in.
    """
    town.restore(state)
    for track in incident.tracks:
        poses, velocity = motion_of(ego, track)
        (x, y), v = (float(m) for m in mirrored(poses[step, :2])), mirrored(velocity[step])
        z, yaw = town.lane_map.ground_height(x, y, ego.z_m), float(mirrored_yaw(poses[step, 2]))
        row = town.spawn(track.model, x, y, z, yaw, policy=POLICY_KINEMATIC)
        if row < 0:
            return None
        now = town.state
        now.velocity[row, :2], now.speed[row] = v, np.hypot(*v)
        before, after = (np.hypot(*velocity[i]) for i in (max(step - 1, 0), step))
        if not on_foot(track) and (after - before) / STEP_S < BRAKES_MPS2:
            now.lamps[row] |= np.uint32(LAMP_BRAKE)
    changed = town.copy_state()
    if incident.lights is not None and incident.colors is not None:
        changed.light_state[incident.lights] = incident.colors
    return changed


def in_frame(frame: Frame, ego: EgoState, incident: Incident, step: int, light_rows: NDArray[np.intp]) -> Frame:
    """A logged frame with the incident in it; light_rows (q,) are the town's rows of the frame's stop lines."""
    actors, lights = frame.actors, frame.lights
    if incident.tracks:
        moved = [motion_of(ego, track) for track in incident.tracks]
        models = [MODELS[track.model] for track in incident.tracks]
        first = int(actors.ids.max(initial=0)) + 1
        more = ActorStates(
            np.arange(first, first + len(models)),
            np.array([ACTOR_WALKER if on_foot(track) else ACTOR_VEHICLE for track in incident.tracks], np.uint8),
            np.array([[*poses[step, :2], ego.z_m, poses[step, 2]] for poses, _ in moved]),
            np.array([[m.length_m, m.width_m, m.height_m] for m in models]),
            np.array([velocity[step] for _, velocity in moved]),
        )  # fmt: skip
        columns = ("ids", "kinds", "pose", "size_m", "velocity_mps")
        actors = ActorStates(*(np.concatenate([getattr(actors, c), getattr(more, c)]) for c in columns))
    if incident.lights is not None:
        colors = dict(zip(incident.lights.tolist(), np.asarray(incident.colors).tolist(), strict=True))
        states = [colors.get(int(row), state) for row, state in zip(light_rows, lights.states, strict=True)]
        lights = LightStates(np.array(states, np.uint8), lights.stop_pose, lights.half_width_m)
    return replace(frame, actors=actors, lights=lights)
