"""Comfort with nuPlan's bounds and the right physics, at the box's centre.

Lateral acceleration is v * omega + d * omega', longitudinal is v' - d * omega^2 (d: rear axle to
centre); jerk is the vector's, in the ground frame; everything in radians.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drivesim.datatypes import Episode

Array = NDArray[np.float64]

PERIOD_S = 0.1
BLOCK = 20  # samples: two seconds


@dataclass(frozen=True)
class ComfortBounds:
    """Strict bounds of nuPlan."""

    min_longitudinal_mps2: float = -4.05
    max_longitudinal_mps2: float = 2.40
    lateral_mps2: float = 4.89
    jerk_mps3: float = 8.37
    longitudinal_jerk_mps3: float = 4.13
    yaw_rate_radps: float = 0.95
    yaw_acceleration_radps2: float = 1.93


DEFAULT_BOUNDS = ComfortBounds()


def savitzky_golay(values: Array, window: int, order: int, derivative: int = 0, dt_s: float = PERIOD_S) -> Array:
    """Least-squares polynomial smoothing of (t,) or its derivative; the window is made odd and shortened to fit.

    Both ends come from the polynomials fitted to the first and the last window.
    """
    count = len(values)
    window = min(window, count)
    window -= 1 - window % 2
    half, order = window // 2, min(order, window - 1)
    if derivative > order:
        return np.zeros(count)
    offsets = np.arange(-half, half + 1, dtype=np.float64)
    basis = np.vander(offsets, order + 1, increasing=True)
    fit = np.linalg.pinv(basis)  # (order + 1, window): samples -> coefficients
    centre = np.clip(np.arange(count), half, count - 1 - half)
    coefficients = values[centre[:, None] + offsets.astype(np.int64)] @ fit.T
    at = (np.arange(count) - centre).astype(np.float64)
    result = np.zeros(count)
    for power in range(derivative, order + 1):
        scale = float(np.prod(np.arange(power - derivative + 1, power + 1))) if derivative else 1.0
        result += scale * coefficients[:, power] * at ** (power - derivative)
    return result / dt_s**derivative


def signals(
    times_us: NDArray[np.int64], speed_mps: Array, yaw_rad: Array, rear_axle_to_center_m: float
) -> dict[str, Array]:
    """The six comfort signals (t,) on a grid of 0.1 s."""
    seconds = (times_us - times_us[0]) * 1e-6
    grid = np.arange(0.0, seconds[-1] + 1e-9, PERIOD_S)
    speed = np.interp(grid, seconds, speed_mps)
    yaw = np.interp(grid, seconds, np.unwrap(yaw_rad))
    rate = savitzky_golay(yaw, 5, 2, 1)
    turn = savitzky_golay(yaw, 5, 3, 2)
    pull = savitzky_golay(speed, 7, 2, 1)
    longitudinal = pull - rear_axle_to_center_m * rate**2
    lateral = speed * rate + rear_axle_to_center_m * turn
    longitudinal_jerk = savitzky_golay(longitudinal, 15, 2, 1)
    lateral_jerk = savitzky_golay(lateral, 15, 2, 1)
    jerk = np.hypot(longitudinal_jerk - rate * lateral, lateral_jerk + rate * longitudinal)
    return {
        "longitudinal": longitudinal, "lateral": lateral, "jerk": jerk, "longitudinal_jerk": longitudinal_jerk,
        "yaw_rate": rate, "yaw_acceleration": turn,
    }  # fmt: skip


def comfortable(values: dict[str, Array], bounds: ComfortBounds = DEFAULT_BOUNDS) -> NDArray[np.bool_]:
    """(t,) whether all six signals are within their bounds."""
    return np.asarray(
        (values["longitudinal"] > bounds.min_longitudinal_mps2)
        & (values["longitudinal"] < bounds.max_longitudinal_mps2)
        & (np.abs(values["lateral"]) < bounds.lateral_mps2)
        & (values["jerk"] < bounds.jerk_mps3)
        & (np.abs(values["longitudinal_jerk"]) < bounds.longitudinal_jerk_mps3)
        & (np.abs(values["yaw_rate"]) < bounds.yaw_rate_radps)
        & (np.abs(values["yaw_acceleration"]) < bounds.yaw_acceleration_radps2)
    )


def comfort(episode: Episode, bounds: ComfortBounds = DEFAULT_BOUNDS) -> float | None:
    """Share of two-second blocks that are comfortable throughout (a rest is dropped); None for less than a second."""
    if len(episode.times_us) < 2 or (episode.times_us[-1] - episode.times_us[0]) * 1e-6 < 1.0:
        return None
    values = signals(episode.times_us, episode.ego[:, 4], episode.ego[:, 3], episode.ego_size_m[2])
    good = comfortable(values, bounds)
    if len(good) <= BLOCK:
        return float(good.all())
    blocks = good[: len(good) // BLOCK * BLOCK].reshape(-1, BLOCK)
    return float(blocks.all(axis=1).mean())
