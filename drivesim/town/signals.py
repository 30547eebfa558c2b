"""Traffic lights: the lights of a group go through their phases in turn (green, yellow, all red)."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from drivesim.town.roads import RoadNetwork
from drivesim.town.state import LIGHT_GREEN, LIGHT_RED, LIGHT_YELLOW, TownState

GREEN_S, YELLOW_S, ALL_RED_S = 10.0, 3.0, 2.0


def start_signals(network: RoadNetwork, state: TownState) -> None:
    """Put every group at the start of a phase; groups start staggered so that a town does not blink as one."""
    state.light_durations_s[:] = (GREEN_S, YELLOW_S, ALL_RED_S)
    state.light_frozen[:] = 0
    state.light_elapsed_s[:] = 0.0
    phases = phase_counts(network)
    groups = np.arange(len(state.group_phase))
    state.group_phase[:] = groups % np.maximum(phases, 1)
    state.group_elapsed_s[:] = (groups * 3.7) % GREEN_S
    green = state.group_phase[network.light_group] == network.light_phase
    state.light_state[:] = np.where(green, LIGHT_GREEN, LIGHT_RED)


def phase_counts(network: RoadNetwork) -> NDArray[np.int32]:
    """Number of phases of each group, (G,)."""
    groups = int(network.light_group.max()) + 1 if len(network.light_group) else 0
    counts = np.zeros(groups, np.int32)
    np.maximum.at(counts, network.light_group, network.light_phase + 1)
    return counts


def lights_of_group(network: RoadNetwork, light: int) -> NDArray[np.int64]:
    """Rows of all lights that cycle together with this one (itself included)."""
    return np.flatnonzero(network.light_group == network.light_group[light])


def set_light(state: TownState, light: int, value: int) -> None:
    """Set one light; it keeps the value until its group reaches the next change."""
    state.light_state[light] = value
    state.light_elapsed_s[light] = 0.0


def reset_group(network: RoadNetwork, state: TownState, group: int) -> None:
    """Restart a group: its first phase turns green now."""
    state.group_phase[group] = 0
    state.group_elapsed_s[group] = 0.0
    lights = np.flatnonzero(network.light_group == group)
    state.light_state[lights] = np.where(network.light_phase[lights] == 0, LIGHT_GREEN, LIGHT_RED)
    state.light_elapsed_s[lights] = 0.0


@njit(cache=True, error_model="numpy")
def _stage(elapsed_s: float, green_s: float, yellow_s: float) -> int:
    """0 green, 1 yellow, 2 all red."""
    if elapsed_s < green_s:
        return 0
    return 1 if elapsed_s < green_s + yellow_s else 2


@njit(cache=True, error_model="numpy")
def step_signals(
    light_group: NDArray[np.int32], light_phase: NDArray[np.int32], phases: NDArray[np.int32],
    light_state: NDArray[np.uint8], light_elapsed_s: NDArray[np.float64], durations_s: NDArray[np.float64],
    frozen: NDArray[np.uint8], group_phase: NDArray[np.int32], group_elapsed_s: NDArray[np.float64], dt_s: float,
) -> None:  # fmt: skip
    """Advance all lights by dt_s; only a change of stage writes light states, so that a set state lasts until then."""
    groups, lights = len(group_phase), len(light_group)
    green_s, yellow_s, red_s = np.zeros(groups), np.zeros(groups), np.zeros(groups)
    stopped = np.zeros(groups, np.uint8)
    for k in range(lights):
        g = light_group[k]
        stopped[g] |= frozen[k]
        if light_phase[k] == group_phase[g]:
            green_s[g] = max(green_s[g], durations_s[k, 0])
            yellow_s[g] = max(yellow_s[g], durations_s[k, 1])
            red_s[g] = max(red_s[g], durations_s[k, 2])
    new_stage = np.full(groups, -1, np.int8)
    for g in range(groups):
        if stopped[g]:
            continue
        before = _stage(group_elapsed_s[g], green_s[g], yellow_s[g])
        group_elapsed_s[g] += dt_s
        after = _stage(group_elapsed_s[g], green_s[g], yellow_s[g])
        if group_elapsed_s[g] >= green_s[g] + yellow_s[g] + red_s[g]:
            group_elapsed_s[g] -= green_s[g] + yellow_s[g] + red_s[g]
            group_phase[g] = (group_phase[g] + 1) % max(phases[g], 1)
            after = 0
        if after != before:
            new_stage[g] = after
    for k in range(lights):
        g = light_group[k]
        if stopped[g]:
            continue
        light_elapsed_s[k] += dt_s
        if new_stage[g] < 0:
            continue
        value = LIGHT_RED
        if light_phase[k] == group_phase[g] and new_stage[g] == 0:
            value = LIGHT_GREEN
        elif light_phase[k] == group_phase[g] and new_stage[g] == 1:
            value = LIGHT_YELLOW
        if light_state[k] != value:
            light_state[k] = value
            light_elapsed_s[k] = 0.0
