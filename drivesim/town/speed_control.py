"""CARLA's Ackermann control: a cascade of two incremental PID controllers, speed over acceleration over pedals.

The outer one moves the wanted acceleration by its output at every step, the inner one the pedal (positive
throttle, negative brake); derivatives are taken of the measurement. Gains are AckermannControllerSettings.
"""

# mypy: disable-error-code="no-any-return"
from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from drivesim.town.motion import (
    ACCELERATION_KP,
    ACCELERATION_LAST,
    ACCELERATION_SUM,
    PEDAL,
    SPEED_KP,
    SPEED_LAST,
    SPEED_SUM,
    TRACK_ACCELERATION,
    TRACK_AGE,
    TRACK_JERK,
    TRACK_SPEED,
    TRACK_STEER,
    TRACK_STEER_SPEED,
    TUNED,
    WANTED_ACCELERATION,
)

F32 = NDArray[np.float32]
DEFAULT_GAINS = (0.15, 0.0, 0.25, 0.01, 0.0, 0.01)  # speed kp, ki, kd, acceleration kp, ki, kd
STANDING_MPS = 0.1
SMOOTHING = 0.8  # share of the old in the measured acceleration
MOST_ACCELERATION_MPS2, MOST_DECELERATION_MPS2 = 3.0, 8.0


@njit(cache=True, error_model="numpy")
def _gain(motion: F32, first: int, place: int) -> float:
    if motion[TUNED] > 0.0:
        return motion[first + place]
    return DEFAULT_GAINS[first - SPEED_KP + place]


@njit(cache=True, error_model="numpy")
def _controller(motion: F32, first: int, total: int, last: int, goal: float, value: float, dt_s: float) -> float:
    """One step of a PID whose gains stand at `first`, its memories at `total` and `last`."""
    error = goal - value
    motion[total] += error * dt_s
    slope = (value - motion[last]) / dt_s if motion[TRACK_AGE] > 0.0 else 0.0
    motion[last] = value
    return (_gain(motion, first, 0) * error + _gain(motion, first, 1) * motion[total]
            - _gain(motion, first, 2) * slope)  # fmt: skip


@njit(cache=True, error_model="numpy")
def _rest(motion: F32) -> None:
    motion[SPEED_SUM] = motion[ACCELERATION_SUM] = motion[WANTED_ACCELERATION] = motion[PEDAL] = 0.0
    motion[TRACK_AGE] = motion[SPEED_LAST] = motion[ACCELERATION_LAST] = 0.0


@njit(cache=True, error_model="numpy")
def tracked_steer(motion: F32, steer: float, max_steer_rad: float, dt_s: float) -> float:
    """The next steer (-1 to 1) towards the wanted angle, at the wanted rate."""
    goal = min(max(motion[TRACK_STEER] / max(max_steer_rad, 1e-3), -1.0), 1.0)
    if motion[TRACK_STEER_SPEED] < 1e-3:
        return goal
    change = motion[TRACK_STEER_SPEED] / max(max_steer_rad, 1e-3) * dt_s
    return min(max(goal, steer - change), steer + change)


@njit(cache=True, error_model="numpy")
def track_speed(motion: F32, speed_mps: float, reverse: bool, dt_s: float) -> tuple[float, float, bool]:
    """Throttle, brake and reverse of one step towards the wanted speed; advances the controllers' memories."""
    goal = motion[TRACK_SPEED]
    if abs(speed_mps) < STANDING_MPS:
        if abs(goal) < STANDING_MPS:
            _rest(motion)
            return 0.0, 1.0, reverse
        reverse = goal < 0.0
    wanted = abs(goal) if goal * speed_mps >= 0.0 else 0.0  # the other way begins with a stop
    value = abs(speed_mps)
    measured = 0.0
    if motion[TRACK_AGE] > 0.0:  # smoothed, or the inner derivative would follow its own pedal
        measured = SMOOTHING * motion[ACCELERATION_LAST] + (1.0 - SMOOTHING) * (value - motion[SPEED_LAST]) / dt_s
    change = _controller(motion, SPEED_KP, SPEED_SUM, SPEED_LAST, wanted, value, dt_s)
    if motion[TRACK_JERK] > 1e-3:
        change = min(max(change, -motion[TRACK_JERK] * dt_s), motion[TRACK_JERK] * dt_s)
    asked = abs(motion[TRACK_ACCELERATION])
    up = asked if asked > 1e-3 else MOST_ACCELERATION_MPS2
    down = asked if asked > 1e-3 else MOST_DECELERATION_MPS2
    target = min(max(motion[WANTED_ACCELERATION] + change, -down), up)
    motion[WANTED_ACCELERATION] = target
    step = _controller(motion, ACCELERATION_KP, ACCELERATION_SUM, ACCELERATION_LAST, target, measured, dt_s)
    motion[PEDAL] = min(max(motion[PEDAL] + step, -1.0), 1.0)
    motion[TRACK_AGE] = 1.0
    if not math.isfinite(motion[PEDAL]):  # gains out of any reason
        _rest(motion)
    return max(motion[PEDAL], 0.0), max(-motion[PEDAL], 0.0), reverse
