"""The event camera: where and when the brightness of a pixel crosses a threshold (0.9.16, DVSCamera.cpp).

Between two pictures the brightness (or its logarithm) of a pixel is taken to change evenly, so each crossing has a
time. The camera noise and the rain of the drawn pictures stand still for this camera: they would make events.
"""

# mypy: disable-error-code="untyped-decorator,no-any-return"
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from drivesim.carla_server.actors import ServerActor

EVENT = np.dtype([("x", "<u2"), ("y", "<u2"), ("t", "<i8"), ("polarity", "u1")])
LEAST_THRESHOLD = 0.01
SAME = 1e-6
GREY = np.array([0.114, 0.587, 0.2989], np.float32)  # of blue, green, red


@dataclass(frozen=True)
class EventModel:
    """What an event camera's attributes say."""

    rise: float
    fall: float
    rise_spread: float
    fall_spread: float
    rest_ns: int
    logarithmic: bool
    log_floor: float

    @staticmethod
    def of(actor: ServerActor) -> EventModel:
        """Read the attributes; thresholds are at least 0.01, so that events stay countable."""
        return EventModel(
            rise=max(actor.number("positive_threshold", 0.3), LEAST_THRESHOLD),
            fall=max(actor.number("negative_threshold", 0.3), LEAST_THRESHOLD),
            rise_spread=min(max(actor.number("sigma_positive_threshold", 0.0), 0.0), 1e3),
            fall_spread=min(max(actor.number("sigma_negative_threshold", 0.0), 0.0), 1e3),
            rest_ns=int(min(max(actor.number("refractory_period_ns", 0), 0), 1e18)),
            logarithmic=actor.value("use_log", "true").lower() == "true",
            log_floor=min(max(actor.number("log_eps", 0.001), 1e-6), 1e3),
        )


class EventCamera:
    """What an event camera remembers of each pixel."""

    def __init__(self, model: EventModel, rng: np.random.Generator) -> None:
        self.model = model
        self._rng = rng
        self._time_ns = 0
        self._seen: NDArray[np.float32] | None = None
        self._level: NDArray[np.float32] = np.zeros(0, np.float32)  # (h * w,) the threshold crossed last
        self._last_ns: NDArray[np.int64] = np.zeros(0, np.int64)  # (h * w,) of the last event, -1: none yet

    def look(self, bgra: NDArray[np.uint8], time_s: float) -> NDArray[np.void]:
        """The events (k,) since the last picture, in order of time; bgra (h, w, 4). The first picture gives none."""
        model, time_ns = self.model, round(time_s * 1e9)
        grey = bgra[..., :3].astype(np.float32) @ GREY
        if model.logarithmic:
            grey = np.log(np.float32(model.log_floor) + grey / np.float32(255.0))
        now, before = grey.ravel(), self._seen
        before_ns, self._seen, self._time_ns = self._time_ns, now, time_ns
        if before is None or len(before) != len(now):
            self._level, self._last_ns = now.copy(), np.full(len(now), -1, np.int64)
            return np.zeros(0, EVENT)
        step = self._thresholds(now >= before)
        most = int((np.abs(now - self._level) / step).astype(np.int64).sum()) + len(now)
        pixel, stamp, sign = np.empty(most, np.int32), np.empty(most, np.int64), np.empty(most, np.uint8)
        span_ns = time_ns - before_ns
        count = int(_cross(before, now, self._level, self._last_ns, step, before_ns, span_ns, model.rest_ns,
                           pixel, stamp, sign))  # fmt: skip
        events = np.zeros(count, EVENT)
        order = np.argsort(stamp[:count], kind="stable")
        events["y"], events["x"] = np.divmod(pixel[:count][order], bgra.shape[1])
        events["t"], events["polarity"] = stamp[:count][order], sign[:count][order]
        return events

    def _thresholds(self, rising: NDArray[np.bool_]) -> NDArray[np.float32]:
        """(h * w,) of this picture."""
        model = self.model
        step = np.where(rising, model.rise, model.fall)
        if model.rise_spread > 0.0 or model.fall_spread > 0.0:
            step = step + self._rng.normal(size=len(rising)) * np.where(rising, model.rise_spread, model.fall_spread)
        return np.maximum(step, LEAST_THRESHOLD).astype(np.float32)


@njit(cache=True, nogil=True, error_model="numpy")
def _cross(before, now, level, last_ns, step, start_ns, span_ns, rest_ns, pixel, stamp, sign):  # type: ignore[no-untyped-def]
    """Write the crossings of every pixel; returns their number."""
    count = 0
    for i in range(now.shape[0]):
        change = now[i] - before[i]
        if abs(change) <= SAME:
            continue
        way = np.float32(1) if change > 0 else np.float32(-1)
        crossing = level[i]
        while True:
            crossing += way * step[i]
            passed = before[i] < crossing <= now[i] if change > 0 else now[i] <= crossing < before[i]
            if not passed:
                break
            at = start_ns + np.int64(np.float64(crossing - before[i]) * span_ns / np.float64(change))
            if last_ns[i] < 0 or at - last_ns[i] >= rest_ns:
                if count < pixel.shape[0]:
                    pixel[count], stamp[count], sign[count] = i, at, 1 if change > 0 else 0
                    count += 1
                last_ns[i] = at
            level[i] = crossing
    return count
