"""Calls about the recorder: recording, replaying, and what a recording holds.

Files are read and described in a thread beside the reactor's, so that a long one holds up nobody's ticks.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drivesim.carla_server import recorder_queries as queries
from drivesim.carla_server import structs
from drivesim.carla_server.recorder import Recorder
from drivesim.carla_server.recorder_file import RecorderFile, UnreadableRecording, load
from drivesim.carla_server.recorder_lines import num
from drivesim.carla_server.recorder_queries import TextTooLong
from drivesim.carla_server.replay_source import left_out
from drivesim.carla_server.replayer import Replayer, ReplayRequest, follow_offset
from drivesim.carla_server.rpc import VALUE, VOID, Call, Deferred, Peer, Refusal

if TYPE_CHECKING:
    from drivesim.carla_server.server import CarlaServer

log = logging.getLogger(__name__)

MOST_WAITING = 32
MOST_TIME_FACTOR = 1000.0
DEFAULT_OFFSET = [[-10.0, 0.0, 5.0], [-25.0, 0.0, 0.0]]
LISTED_TYPES = 20
Finish = Callable[[Any], Any]  # on the reactor's thread, with what the thread beside it made


class RecorderCalls:
    """Handlers; each takes the call's arguments (and the calling peer before them where the table says so)."""

    def __init__(self, server: CarlaServer) -> None:
        self._server = server
        self._simulation = server.simulation
        self._recordings = server.recordings
        self._recorder = Recorder(lambda episode, actor_id: server.physics_controls.get(episode, actor_id))
        self._replayer = Replayer(self._destroy)
        self._worker = ThreadPoolExecutor(1, "recordings")
        self._waiting = 0
        server.simulation.stepped = self._stepped
        server.simulation.published = self._published
        server.at_close.append(self._close)

    # ---- recording

    def start_recorder(self, name: Any, additional: Any = False, *_: Any) -> str:
        """Begin a recording, in place of the one that is running; ends a replay. Answers the file's path."""
        path = self._recordings.path_to_write(name, "start_recorder")
        self._replayer.stop(keep_actors=False)
        try:
            self._recorder.start(path, self._simulation.episode, structs.flag(additional))
        except OSError as error:
            raise Refusal(f"start_recorder: cannot write {path} ({error.strerror or error})") from None
        return str(path)

    def stop_recorder(self) -> None:
        """End the recording."""
        self._recorder.stop()

    # ---- replaying

    def replay_file(
        self, peer: Peer, name: Any, start: Any = 0.0, duration: Any = 0.0, follow: Any = 0, sensors: Any = False,
        offset: Any = None, *_: Any,
    ) -> Deferred:  # fmt: skip
        """Replay a recording, on its own map; ends a recording and another replay."""
        path = self._recordings.path(name, "replay_file")
        place = follow_offset(*structs.transform(DEFAULT_OFFSET if offset is None else offset))
        request = ReplayRequest(structs.number(start), structs.number(duration), structs.identifier(follow),
                                structs.flag(sensors), place)  # fmt: skip
        return self._aside(peer, path, lambda recording: (recording, left_out(recording)),
                           partial(self._replay, path, request), f"Replaying File: {path}\n")  # fmt: skip

    def _replay(self, path: Path, request: ReplayRequest, read: tuple[RecorderFile, dict[str, int]]) -> str:
        recording, missing = read
        if not len(recording):
            raise Refusal(f"replay_file: {path} holds no frame")
        self._recorder.stop()
        self._replayer.stop(keep_actors=False)
        lines = [f"Replaying File: {path}", *self._load_map(recording.header.map_name)]
        self._replayer.start(recording, self._simulation.episode, request)
        start_s, stop_s = request.span(recording.total_s)
        lines += [f"Total time recorded: {num(recording.total_s)}",
                  f"Replaying from {num(start_s)} s - {num(stop_s)} s ({num(recording.total_s)} s) at "
                  f"{self._replayer.time_factor:.1f}x"]  # fmt: skip
        lines += ["Ignoring Hero vehicle"] if self._replayer.ignore_hero else []
        lines += ["Ignoring Spectator camera"] if self._replayer.ignore_spectator else []
        if missing:
            most = sorted(missing.items(), key=lambda item: -item[1])[:LISTED_TYPES]
            listed = ", ".join(f"{type_id} ({count})" for type_id, count in most)
            lines.append(f"Left out, for want of a blueprint: {listed}")
        return "\n".join(lines) + "\n"

    def _load_map(self, name: str) -> list[str]:
        """Load the recording's map where another one is served; the settings stay."""
        if _short(name) == _short(self._simulation.episode.map_name):
            return []
        try:
            self._simulation.load(name, False)
        except Refusal as refusal:
            raise Refusal(f"replay_file: Could not load mapfile {name}: {refusal}") from None
        return [f"Loading map {name}"]

    def stop_replayer(self, keep_actors: Any) -> None:
        """End the replay; the actors that it made stay, or go."""
        self._replayer.stop(structs.flag(keep_actors))

    def set_time_factor(self, factor: Any) -> None:
        """How fast the replay goes; 0 holds it."""
        value = structs.number(factor)
        if not 0.0 <= value <= MOST_TIME_FACTOR:
            raise Refusal(f"set_replayer_time_factor: {value:g} is not within 0 to {MOST_TIME_FACTOR:g}")
        self._replayer.time_factor = value

    def set_ignore_hero(self, ignore: Any) -> None:
        """Leave out vehicles whose role name is hero."""
        self._replayer.ignore_hero = structs.flag(ignore)

    def set_ignore_spectator(self, ignore: Any) -> None:
        """Leave the spectator alone."""
        self._replayer.ignore_spectator = structs.flag(ignore)

    # ---- what a recording holds

    def file_info(self, peer: Peer, name: Any, show_all: Any = False) -> Deferred:
        """The events of a recording, or all of it."""
        everything = structs.flag(show_all)
        path = self._recordings.path(name, "show_recorder_file_info")
        return self._aside(peer, path, lambda recording: queries.file_info(recording, everything))

    def collisions(self, peer: Peer, name: Any, category1: Any, category2: Any) -> Deferred:
        """When actors of two categories touched."""
        first, second = _letter(category1), _letter(category2)
        path = self._recordings.path(name, "show_recorder_collisions")
        return self._aside(peer, path, lambda recording: queries.collisions(recording, first, second))

    def actors_blocked(self, peer: Peer, name: Any, min_time: Any = 30.0, min_distance: Any = 10.0) -> Deferred:
        """Who stood still for so many seconds, within so many centimetres."""
        seconds, distance_cm = structs.number(min_time), structs.number(min_distance)
        path = self._recordings.path(name, "show_recorder_actors_blocked")
        return self._aside(peer, path, lambda recording: queries.actors_blocked(recording, seconds, distance_cm))

    # ---- ticks

    def _stepped(self, delta_s: float) -> None:
        if self._replayer.running:
            try:
                self._replayer.tick(self._simulation.episode, delta_s)
            except Exception:  # a replay never stops the ticks
                log.exception("the replay ends")
                self._replayer.stop(keep_actors=True)

    def _published(self, delta_s: float) -> None:
        if self._recorder.running:
            try:
                self._recorder.tick(self._simulation.episode, self._simulation.observer, delta_s)
            except Exception:
                log.exception("the recording ends")
                self._recorder.stop()

    def _destroy(self, actor_id: int) -> None:
        actor = self._simulation.episode.destroy(actor_id)
        if actor.stream_id:
            self._server.hub.close_stream(actor.stream_id)

    def _close(self) -> None:
        self._recorder.stop()
        self._worker.shutdown(wait=False, cancel_futures=True)

    # ---- the thread beside

    def _aside(
        self, peer: Peer, path: Path, work: Callable[[RecorderFile], Any], finish: Finish | None = None, head: str = ""
    ) -> Deferred:  # fmt: skip
        """Load a file and work on it in the thread beside; answer with what `finish` makes of it."""
        if self._waiting >= MOST_WAITING:
            raise Refusal(f"{MOST_WAITING} questions about recordings wait already; ask again later")
        deferred = peer.defer()
        self._waiting += 1
        self._worker.submit(self._read, path, work, finish or _same, head, deferred)
        return deferred

    def _read(
        self, path: Path, work: Callable[[RecorderFile], Any], finish: Finish, head: str, deferred: Deferred
    ) -> None:  # fmt: skip
        outcome: Any
        try:
            outcome = work(load(path))
        except FileNotFoundError:  # CARLA answers this with a text
            outcome, finish = f"{head}File {path} not found on server\n", _same
        except (UnreadableRecording, TextTooLong) as error:
            outcome = Refusal(f"{path}: {error}")
        except OSError as error:
            outcome = Refusal(f"cannot read {path} ({error.strerror or error})")
        except Exception as error:
            log.exception("a recording could not be read")
            outcome = Refusal(f"{path}: failed in the server ({type(error).__name__}: {error})")
        self._server.reactor.post(lambda: self._answer(deferred, outcome, finish))

    def _answer(self, deferred: Deferred, outcome: Any, finish: Finish) -> None:
        self._waiting -= 1
        if isinstance(outcome, Refusal):
            deferred.refuse(str(outcome))
            return
        try:
            answer = finish(outcome)
        except Exception as error:
            if not isinstance(error, Refusal):
                log.exception("a replay could not begin")
            deferred.refuse(str(error))
        else:
            deferred.reply(answer)


def _same(value: Any) -> Any:
    return value


def _short(map_name: str) -> str:
    return re.sub(r"_Opt$", "", map_name.rstrip("/").rsplit("/", 1)[-1])


def _letter(value: Any) -> str:
    """A category; the client sends a character's number."""
    letter = chr(value) if type(value) is int and 0 <= value < 128 else value
    if letter not in tuple("hvwtoa"):
        raise Refusal(f"show_recorder_collisions: unknown category {value!r}; known are h (hero), v (vehicle), "
                      "w (walker), t (traffic light), o (other) and a (any)")  # fmt: skip
    return str(letter)


def recorder_calls(server: CarlaServer) -> dict[str, Call]:
    """The group's table."""
    calls = RecorderCalls(server)
    return {
        "start_recorder": Call(VALUE, calls.start_recorder),
        "stop_recorder": Call(VOID, calls.stop_recorder),
        "replay_file": Call(VALUE, calls.replay_file, peer=True),
        "stop_replayer": Call(VOID, calls.stop_replayer),
        "set_replayer_time_factor": Call(VOID, calls.set_time_factor),
        "set_replayer_ignore_hero": Call(VOID, calls.set_ignore_hero),
        "set_replayer_ignore_spectator": Call(VOID, calls.set_ignore_spectator),
        "show_recorder_file_info": Call(VALUE, calls.file_info, peer=True),
        "show_recorder_collisions": Call(VALUE, calls.collisions, peer=True),
        "show_recorder_actors_blocked": Call(VALUE, calls.actors_blocked, peer=True),
    }
