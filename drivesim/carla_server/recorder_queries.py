"""What CARLA prints about a recorder log: its events or all of it, its collisions, the actors that stood still.

The texts are those of CARLA 0.9.15's server, which ScenarioRunner's metrics and users' scripts parse. One thing
differs: an actor that was destroyed keeps its name in later lines (CARLA forgets another one instead).
"""

from __future__ import annotations

import time
from collections.abc import Iterable

import numpy as np

from drivesim.carla_server import recorder_file as log
from drivesim.carla_server.recorder_file import RecorderFile
from drivesim.carla_server.recorder_lines import EVENTS, EVERYTHING, doors, num

TEXT_LIMIT = 64 << 20
MOST_LINES = 200_000
CATEGORIES = "ovwtha"  # by kind of actor; CARLA's own letters, so a sign is `h` and a sensor `a`
NOBODY = 0xFFFFFFFF


class TextTooLong(ValueError):  # noqa: N818
    """The answer would be longer than TEXT_LIMIT."""


class _Text:
    """Collects lines, within a limit."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self._size = 0

    def add(self, text: str) -> None:
        self._size += len(text)
        if self._size > TEXT_LIMIT:
            raise TextTooLong(f"the text about this log would be longer than {TEXT_LIMIT >> 20} MB")
        self.parts.append(text)

    def done(self) -> str:
        return "".join(self.parts)


def file_info(recording: RecorderFile, show_all: bool) -> str:
    """CARLA's `show_recorder_file_info`: frames with events, or (`show_all`) every record of every frame."""
    text = _Text()
    text.add(_opening(recording))
    wanted = range(len(recording)) if show_all else _frames_with_events(recording)
    for frame in wanted:
        lines: list[str] = []
        for number, payload in recording.packets(frame):
            describe = (EVERYTHING if show_all else EVENTS).get(number)
            if number in (log.DOORS, log.WHEELS, log.BIKERS) and show_all:
                describe = doors if log.late_kind(payload) == log.DOORS else None
            if describe is not None:
                lines += describe(payload)
        if show_all or lines:
            elapsed = num(float(recording.elapsed_s[frame]))
            text.add(f"Frame {recording.numbers[frame]} at {elapsed} seconds\n" + "".join(lines))
    text.add(_closing(recording, num(recording.total_s)))
    return text.done()


def collisions(recording: RecorderFile, category1: str, category2: str) -> str:
    """CARLA's `show_recorder_collisions`: when two actors of these categories began to touch.

    Args:
        recording: the log.
        category1: of the first actor: `h` hero, `v` vehicle, `w` walker, `t` traffic light, `o` other, `a` any.
        category2: of the second.
    """
    text = _Text()
    text.add(_opening(recording))
    text.add(f"{'Time':>8} {'Types':>6} {'Id':>6} {'Actor 1':<35} {'Id':>6} {'Actor 2':<35}\n")
    actors: dict[int, tuple[int, str]] = {}
    before: set[tuple[int, int]] = set()
    printed = False
    for frame in range(len(recording)):
        now: set[tuple[int, int]] = set()
        for number, payload in recording.packets(frame):
            if number == log.CREATED:
                actors |= {made.actor_id: (made.kind, made.type_id) for made in log.creations(payload)}
            if number != log.COLLISION:
                continue
            for _, first, second, *heroes in log.records(payload, number).tolist():
                kinds = [_category(actors, one) for one in (first, second)]
                wanted = zip((category1, category2), kinds, heroes, strict=True)
                if not all(want in ("a", kind) or (want == "h" and hero) for want, kind, hero in wanted):
                    continue
                if (first, second) not in before:
                    names = [actors.get(one, (0, ""))[1] for one in (first, second)]
                    text.add(f"{recording.elapsed_s[frame]:8.0f}   {kinds[0]} {kinds[1]}  "
                             f"{first:>6} {names[0]:<35} {second:>6} {names[1]:<35}\n")  # fmt: skip
                    printed = True
                now.add((first, second))
        before = now
    # CARLA's stream keeps the whole seconds of its last line
    text.add(_closing(recording, f"{recording.total_s:.0f}" if printed else num(recording.total_s)))
    return text.done()


@np.errstate(all="ignore")  # a damaged log may hold any number
def actors_blocked(recording: RecorderFile, min_time_s: float, min_distance_cm: float) -> str:
    """CARLA's `show_recorder_actors_blocked`: who did not move so far for so long, the longest first."""
    text = _Text()
    text.add(_opening(recording))
    text.add(f"{'Time':>8} {'Id':>6} {'Actor':<35} {'Duration':>10}\n")
    watch = _Standstill(min_time_s, min_distance_cm)
    for frame in range(len(recording)):
        for number, payload in recording.packets(frame):
            if number == log.CREATED:
                for made in log.creations(payload):
                    watch.begin(made.actor_id, made.type_id)
            elif number == log.POSITION:
                watch.move(log.records(payload, number), float(recording.elapsed_s[frame]),
                           float(recording.durations_s[frame]))  # fmt: skip
    watch.end()
    for _, line in sorted(watch.found, key=lambda item: -item[0]):
        text.add(line)
    text.add(_closing(recording, num(recording.total_s)))
    return text.done()


class _Standstill:
    """How long each actor has stood, for all actors of a frame at once."""

    def __init__(self, min_time_s: float, min_distance_cm: float) -> None:
        self.found: list[tuple[float, str]] = []
        self._min_time_s, self._min_distance_cm = min_time_s, min_distance_cm
        self._slot: dict[int, int] = {}
        self._names: list[str] = []
        self._ids: list[int] = []
        self._place = np.zeros((0, 3))
        self._since_s = np.zeros(0)
        self._stood_s = np.zeros(0)
        self._frame_ids = b""
        self._slots = np.zeros(0, np.int64)

    def begin(self, actor_id: int, name: str) -> None:
        slot = self._slot_of(actor_id)
        self._names[slot] = name
        if slot < len(self._stood_s):
            self._place[slot], self._since_s[slot], self._stood_s[slot] = 0.0, 0.0, 0.0

    def move(self, rows: log.Records, elapsed_s: float, duration_s: float) -> None:
        ids = rows["id"].tobytes()
        if ids != self._frame_ids:
            self._slots = np.array([self._slot_of(one) for one in rows["id"].tolist()], np.int64)
            self._frame_ids = ids
        self._grow()
        place = rows["location"].astype(np.float64)
        slots = self._slots
        stands = np.sqrt(((place - self._place[slots]) ** 2).sum(-1)) < self._min_distance_cm
        stood_s = self._stood_s[slots]
        self._since_s[slots[stands & (stood_s == 0.0)]] = elapsed_s
        self._stood_s[slots[stands]] += duration_s
        for slot in slots[~stands & (stood_s >= self._min_time_s)].tolist():
            self._report(slot)
        self._stood_s[slots[~stands]] = 0.0
        self._place[slots[~stands]] = place[~stands]

    def end(self) -> None:
        self._grow()
        for slot in np.flatnonzero(self._stood_s >= self._min_time_s).tolist():
            self._report(slot)

    def _report(self, slot: int) -> None:
        if len(self.found) >= MOST_LINES:
            raise TextTooLong(f"more than {MOST_LINES} lines; ask for a longer time")
        stood_s = float(self._stood_s[slot])
        line = f"{self._since_s[slot]:8.0f} {self._ids[slot]:>6} {self._names[slot]:<35} {stood_s:>10.0f}\n"
        self.found.append((stood_s, line))

    def _slot_of(self, actor_id: int) -> int:
        if actor_id not in self._slot:
            self._slot[actor_id] = len(self._ids)
            self._ids.append(actor_id)
            self._names.append("")
        return self._slot[actor_id]

    def _grow(self) -> None:
        more = len(self._ids) - len(self._stood_s)
        if more:
            self._place = np.concatenate([self._place, np.zeros((more, 3))])
            self._since_s = np.concatenate([self._since_s, np.zeros(more)])
            self._stood_s = np.concatenate([self._stood_s, np.zeros(more)])


# ---- parts


def _opening(recording: RecorderFile) -> str:
    header = recording.header
    try:
        date = time.strftime("%m/%d/%y %H:%M:%S", time.localtime(header.date_s))
    except (OverflowError, OSError, ValueError):
        date = str(header.date_s)
    return f"Version: {header.version}\nMap: {header.map_name}\nDate: {date}\n\n"


def _closing(recording: RecorderFile, duration: str) -> str:
    return f"\nFrames: {recording.numbers[-1] if len(recording) else 0}\nDuration: {duration} seconds\n"


def _frames_with_events(recording: RecorderFile) -> Iterable[int]:
    """Where actors come or go, and where they collide."""
    eventful = set(recording.event_frames)
    for frame in range(len(recording)):
        if frame in eventful or any(n == log.COLLISION and len(p) > 2 for n, p in recording.packets(frame)):
            yield frame


def _category(actors: dict[int, tuple[int, str]], actor_id: int) -> str:
    kind = actors.get(actor_id, (log.OTHER, ""))[0] if actor_id != NOBODY else log.OTHER
    return CATEGORIES[kind] if kind < len(CATEGORIES) else "o"
