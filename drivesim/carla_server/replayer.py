"""Replaying a recorder log in the present episode, as CARLA does: actors are made or reused, and moved by the log.

The first tick shows the moment that the replay starts at, each later one that of a step (times the time factor)
further on; between two frames poses are interpolated unless the time factor is 2 or more. Replayed vehicles, walkers
and props only move by the log until it ends; then they stand still and physics has them again.
"""

from __future__ import annotations

import bisect
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drivesim.carla_server import recorder_file as log
from drivesim.carla_server.actors import ServerActor
from drivesim.carla_server.episode import Episode
from drivesim.carla_server.poses import Floats, matrix_from_pose
from drivesim.carla_server.recorder_file import Creation, RecorderFile
from drivesim.carla_server.replay_source import Poses, gone_in, made_in, parents_in, poses_of, way_between
from drivesim.carla_server.rpc import Refusal
from drivesim.carla_server.structs import MAP_LIMIT_M, ActorDescription, Vector
from drivesim.town.state import KIND_PROP, KIND_VEHICLE, KIND_WALKER, LIGHT_OFF, POLICY_PARKED

messages = logging.getLogger(__name__)

LIGHT_MATCH_M = 1.0  # CARLA's own lights stand within 0.2 m of the signals of its OpenDRIVE
SAME_MOMENT_S = 1e-6
NO_INTERPOLATION_FACTOR = 2.0
WALKER_LIMIT_MPS = 50.0
TELEPORT_MPS, JERK_MPS2 = 150.0, 100.0  # beyond these an actor was put elsewhere


@dataclass(frozen=True)
class ReplayRequest:
    """What a client asks for."""

    start_s: float  # negative: from the end
    duration_s: float  # 0 or less: to the end
    follow_id: int  # recorded id of the actor that the spectator follows; 0 for none
    sensors: bool  # are sensors made too?
    offset: Floats  # (4, 4) spectator from the followed actor

    def span(self, total_s: float) -> tuple[float, float]:
        """When a log of this length starts and stops."""
        start_s = max(total_s + self.start_s, 0.0) if self.start_s < 0.0 else self.start_s
        return start_s, start_s + self.duration_s if self.duration_s > 0.0 else total_s


class Replayer:
    """At most one replay at a time, and the settings that outlive it."""

    def __init__(self, destroy: Callable[[int], None]) -> None:
        """`destroy` removes an actor by its id."""
        self.time_factor = 1.0
        self.ignore_hero = False
        self.ignore_spectator = True
        self._destroy = destroy
        self._playback: _Playback | None = None

    @property
    def running(self) -> bool:
        """Is a replay going on?"""
        return self._playback is not None

    def start(self, recording: RecorderFile, episode: Episode, request: ReplayRequest) -> None:
        """Put the actors where they were at the start; a replay that was running ends, its actors go."""
        self.stop(keep_actors=False)
        playback = _Playback(recording, episode, request, self._destroy, self.ignore_hero, self.ignore_spectator)
        playback.seek()
        playback.show(self.time_factor)
        self._playback = playback

    def stop(self, keep_actors: bool) -> None:
        """End the replay: its actors stay and stand, or those it made are removed."""
        playback, self._playback = self._playback, None
        if playback is not None:
            playback.finish(keep_actors)

    def tick(self, episode: Episode, delta_s: float) -> None:
        """Move all replayed actors, after the town's step; an episode that was loaded meanwhile ends the replay."""
        playback = self._playback
        if playback is None:
            return
        if playback.episode is not episode:
            self._playback = None
            return
        playback.ignore_hero, playback.ignore_spectator = self.ignore_hero, self.ignore_spectator
        playback.show(self.time_factor, delta_s)
        if playback.now_s >= playback.stop_s - SAME_MOMENT_S:
            self.stop(keep_actors=True)
        playback.now_s = min(playback.now_s + delta_s * self.time_factor, playback.stop_s)


class _Playback:
    def __init__(
        self, recording: RecorderFile, episode: Episode, request: ReplayRequest, destroy: Callable[[int], None],
        ignore_hero: bool, ignore_spectator: bool,
    ) -> None:  # fmt: skip
        self.episode = episode
        self.ignore_hero, self.ignore_spectator = ignore_hero, ignore_spectator
        self._recording, self._request, self._destroy = recording, request, destroy
        start_s, stop_s = request.span(recording.total_s)
        self.now_s = min(start_s, recording.total_s)
        self.stop_s = min(stop_s, recording.total_s)
        self._frame = -1  # whose events have happened
        self._ids: dict[int, int] = {}  # recorded id -> the actor's here
        self._own: set[int] = set()  # of those that the replay made
        self._heroes: set[int] = set()
        self._policy: dict[int, int] = {}  # who moved an actor before
        self._poses: dict[int, Poses] = {}
        self._free_lights = [actor for actor in episode.actors if actor.light >= 0]

    # ---- actors

    def seek(self) -> None:
        """Make the actors that live at the start, and none that came and went before."""
        self._frame = self._frame_at(self.now_s)
        alive: dict[int, tuple[Creation, int]] = {}
        for frame in self._recording.event_frames:
            if frame > self._frame:
                break
            parents = parents_in(self._recording, frame)
            for made in made_in(self._recording, frame):
                alive[made.actor_id] = (made, parents.get(made.actor_id, 0))
            for gone in gone_in(self._recording, frame):
                alive.pop(gone, None)
        for made, parent in alive.values():
            self._create(made, parent)

    def finish(self, keep_actors: bool) -> None:
        """Let go of the actors, or remove those that the replay made."""
        for actor_id in sorted({*self._ids.values(), *self._own}):
            actor = self.episode.actors.get(actor_id)
            if actor is None:
                continue
            if not keep_actors and actor_id in self._own:
                self._remove(actor_id)
            elif actor.row >= 0:
                self._release(actor)

    def _events(self, frame: int) -> None:
        parents = parents_in(self._recording, frame)
        for made in made_in(self._recording, frame):
            self._create(made, parents.get(made.actor_id, 0))
        for gone in gone_in(self._recording, frame):
            actor_id = self._ids.pop(gone, 0)
            if actor_id:
                self._remove(actor_id)

    def _create(self, made: Creation, parent: int) -> None:
        """Find or make the actor of a record; what cannot be made is left out."""
        if made.hero:
            self._heroes.add(made.actor_id)
            if self.ignore_hero:
                return
        actor = self._found(made)
        if actor is None and _is_made(made, self._request.sensors):
            try:
                actor = self._spawn(made, parent)
            except Refusal as refusal:
                messages.info("the replay leaves out %s: %s", made.type_id, refusal)
        if actor is None:
            return
        self._ids[made.actor_id] = actor.actor_id
        if actor.row >= 0:
            self._policy.setdefault(actor.actor_id, int(self.episode.town.state.policy[actor.row]))
            self.episode.set_simulated(actor.row, False)

    def _found(self, made: Creation) -> ServerActor | None:
        """The actor that is there already: the spectator, a light at that place, or the recorded actor itself."""
        if made.type_id == "spectator":
            return self.episode.spectator
        if made.kind == log.A_LIGHT or made.type_id.startswith("traffic."):
            return self._light_at(np.array(made.location_cm) / 100.0) if made.kind == log.A_LIGHT else None
        actor = self.episode.actors.get(made.actor_id)
        return actor if actor is not None and actor.type_id == made.type_id and not _is_sensor(made) else None

    def _light_at(self, xyz: Floats) -> ServerActor | None:
        near = [(float(np.hypot(*(actor.matrix[:2, 3] - xyz[:2]))), k) for k, actor in enumerate(self._free_lights)]
        distance_m, index = min(near, default=(math.inf, -1))
        return self._free_lights.pop(index) if distance_m < LIGHT_MATCH_M else None

    def _spawn(self, made: Creation, parent: int) -> ServerActor:
        description = ActorDescription(made.uid, made.type_id, tuple((n, k, v) for k, n, v in made.attributes[:256]))
        xyz, rotation = _sane(made.location_cm, 0.01), _sane(made.rotation_deg, math.pi / 180.0)
        actor = self.episode.spawn(description, xyz, rotation, self._ids.get(parent, 0) if parent else 0,
                                   checked=False, wanted_id=made.actor_id)  # fmt: skip
        self._own.add(actor.actor_id)
        return actor

    def _remove(self, actor_id: int) -> None:
        self._own.discard(actor_id)
        try:
            self._destroy(actor_id)
        except Refusal:  # gone already, or it belongs to the map
            return

    def _release(self, actor: ServerActor) -> None:
        """Let an actor stand, and give it back to physics; a prop to what held it before."""
        state, row = self.episode.town.state, actor.row
        state.speed[row] = state.yaw_rate[row] = 0.0
        state.velocity[row] = state.acceleration[row] = 0.0
        if state.kind[row] == KIND_PROP:
            state.policy[row] = self._policy.get(actor.actor_id, POLICY_PARKED)
            return
        if state.kind[row] == KIND_VEHICLE:
            state.control[row] = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0)
        else:
            state.walker_control[row] = 0.0
        self.episode.set_simulated(row, True)

    def _actor(self, recorded_id: int) -> ServerActor | None:
        """The living actor of a recorded id that the log may move."""
        if self.ignore_hero and recorded_id in self._heroes:
            return None
        return self.episode.actors.get(self._ids.get(recorded_id, 0))

    # ---- moments

    @np.errstate(all="ignore")  # a damaged log may hold any number
    def show(self, factor: float, delta_s: float = 0.0) -> None:
        """Everything as it was at `now_s`; `delta_s` is the time since the moment before (0 at the first)."""
        frame = self._frame_at(self.now_s)
        due = bisect.bisect_right(self._recording.event_frames, self._frame)
        for later in self._recording.event_frames[due:]:
            if later > frame:
                break
            self._events(later)
        self._frame = frame
        if frame < 0:
            return
        self._place(frame, factor, delta_s)
        for number, payload in self._recording.packets(frame):
            if number in _APPLIED:
                _APPLIED[number](self, log.records(payload, number))
        followed = self._actor(self._request.follow_id) if self._request.follow_id else None
        if followed is not None:
            self.episode.spectator.matrix = self.episode.matrix_of(followed) @ self._request.offset

    def _frame_at(self, time_s: float) -> int:
        return int(np.searchsorted(self._recording.elapsed_s, time_s + SAME_MOMENT_S, "right")) - 1

    def _place(self, frame: int, factor: float, delta_s: float) -> None:
        last = frame + 1 >= len(self._recording)
        here, after = self._poses_of(frame), Poses() if last else self._poses_of(frame + 1)
        span_s = 0.0 if last else float(self._recording.elapsed_s[frame + 1] - self._recording.elapsed_s[frame])
        since_s = self.now_s - float(self._recording.elapsed_s[frame])
        share = min(max(since_s / span_s, 0.0), 1.0) if span_s > 0.0 and factor < NO_INTERPOLATION_FACTOR else 0.0
        share = share if share * span_s > SAME_MOMENT_S else 0.0
        moved, turned = way_between(here, after)
        xyz, rotation = here.xyz + share * moved, here.rotation + share * turned
        pace = np.where(np.linalg.norm(moved, axis=-1) < TELEPORT_MPS * span_s, factor / max(span_s, 1e-9), 0.0)
        places, rows = [], []
        for place, recorded in enumerate(here.ids):
            actor = self._actor(recorded)
            if actor is None or (self.ignore_spectator and actor is self.episode.spectator):
                continue
            if actor.row >= 0:
                places.append(place)
                rows.append(actor.row)
            else:
                self._move(actor, xyz[place], rotation[place])
        self._move_rows(np.array(rows, np.int64), xyz[places], rotation[places], moved[places] * pace[places, None],
                        turned[places, 2] * pace[places], delta_s)  # fmt: skip

    def _move(self, actor: ServerActor, xyz: Floats, rotation: Floats) -> None:
        x, y, z = xyz.tolist()
        roll, pitch, yaw = rotation.tolist()
        self.episode.move(actor, (x, y, z), (roll, pitch, yaw))

    def _move_rows(
        self, rows: NDArray[np.int64], xyz: Floats, rotation: Floats, velocity: Floats, yaw_rate: Floats,
        delta_s: float,
    ) -> None:  # fmt: skip
        state = self.episode.town.state
        gained = (velocity - state.velocity[rows]) / delta_s if delta_s > 0.0 else np.zeros_like(velocity)
        calm = np.linalg.norm(gained, axis=-1, keepdims=True) < JERK_MPS2
        state.acceleration[rows] = np.where(calm, gained, 0.0)
        state.xyz[rows], state.rotation[rows] = xyz, rotation
        state.xyz[rows, 2] -= np.where(state.kind[rows] == KIND_WALKER, state.half_size[rows, 2], 0.0)  # feet
        state.velocity[rows], state.yaw_rate[rows] = velocity, yaw_rate
        heading = rotation[:, 2]
        state.speed[rows] = velocity[:, 0] * np.cos(heading) + velocity[:, 1] * np.sin(heading)

    def _poses_of(self, frame: int) -> Poses:
        if frame not in self._poses:
            self._poses = {kept: poses for kept, poses in self._poses.items() if abs(kept - frame) <= 1}
            self._poses[frame] = poses_of(self._recording, frame)
        return self._poses[frame]

    # ---- the records of a frame

    def _lights(self, rows: log.Records) -> None:
        state = self.episode.town.state
        for recorded, frozen, elapsed_s, shown in rows.tolist():
            actor = self._actor(recorded)
            if actor is not None and actor.light >= 0:
                state.light_state[actor.light] = min(shown, LIGHT_OFF)
                state.light_frozen[actor.light] = frozen > 0
                state.light_elapsed_s[actor.light] = elapsed_s if 0.0 <= elapsed_s < 1e6 else 0.0

    def _vehicles(self, rows: log.Records) -> None:
        places, own = self._rows_of(rows["id"])
        rows = rows[places]
        control = np.stack([rows["throttle"], rows["steer"], rows["brake"], rows["hand"] > 0, rows["gear"] < 0,
                            np.zeros(len(rows)), rows["gear"]], axis=-1)  # fmt: skip
        self.episode.town.state.control[own] = np.clip(np.nan_to_num(control), _LEAST, _MOST)

    def _walkers(self, rows: log.Records) -> None:
        state = self.episode.town.state
        places, own = self._rows_of(rows["id"])
        yaw = state.rotation[own, 2]
        speed = np.clip(np.nan_to_num(rows["speed"][places].astype(np.float64)), 0.0, WALKER_LIMIT_MPS)
        still = np.zeros(len(own))
        state.walker_control[own] = np.stack([np.cos(yaw), np.sin(yaw), still, speed, still], axis=-1)

    def _lamps(self, rows: log.Records) -> None:
        places, own = self._rows_of(rows["id"])
        self.episode.town.state.lamps[own] = rows["flags"][places]

    def _rows_of(self, ids: NDArray[np.uint32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Which of some records are of actors in the town, and the rows of those."""
        actors = [self._actor(recorded) for recorded in ids.tolist()]
        found = [(place, actor.row) for place, actor in enumerate(actors) if actor is not None and actor.row >= 0]
        places, own = np.array(found, np.int64).reshape(-1, 2).T
        return places, own


_LEAST = (0.0, -1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
_MOST = (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 12.0)
_APPLIED: dict[int, Callable[[_Playback, log.Records], None]] = {
    log.LIGHT_STATE: _Playback._lights, log.VEHICLE: _Playback._vehicles, log.WALKER: _Playback._walkers,
    log.LAMPS: _Playback._lamps,
}  # fmt: skip


def follow_offset(xyz: Vector, rotation: Vector) -> Floats:
    """The matrix of a client's offset transform."""
    return matrix_from_pose(np.array(xyz), np.array(rotation))


def _is_sensor(made: Creation) -> bool:
    return made.type_id.startswith("sensor.")


def _is_made(made: Creation, sensors: bool) -> bool:
    """Is a missing actor made? The map has its own lights and signs, and a walker's controller nothing to replay."""
    return not made.type_id.startswith(("traffic.", "controller.")) and (sensors or not _is_sensor(made))


def _sane(values: Any, scale: float) -> Vector:
    x, y, z = (float(value) * scale for value in values)
    ok = all(math.isfinite(value) and abs(value) < MAP_LIMIT_M for value in (x, y, z))
    return (x, y, z) if ok else (0.0, 0.0, 0.0)
