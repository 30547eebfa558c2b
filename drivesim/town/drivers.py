"""What a traffic driver is like, and its timers: the columns of `TownState.traffic` for POLICY_TRAFFIC."""

from __future__ import annotations

from numba import njit

from drivesim.town.arrays import Actors, draw

(
    DESIRED,  # share of the speed limit
    HEADWAY,  # s
    MIN_GAP,  # m
    MAX_ACCEL,  # m/s2
    COMFORT,  # comfortable braking, m/s2
    LATERAL,  # comfortable lateral acceleration, m/s2
    BRAKE_DECEL,  # m/s2 of the hard brake that is going on
    BRAKE_LEFT,  # s it still lasts
    BRAKE_RATE,  # random hard brakes per s
    CHANGE_RATE,  # wishes to change lane per s
    CHANGE_TOTAL,  # s the lane change takes
    CHANGE_LEFT,  # s of it left
    OFFSET_FROM,  # m lateral offset at its start
    SET_SPEED,  # m/s ordered by a script, or -1
    RESERVED,  # junction id this vehicle holds a grant for, or -1
    WAIT,  # s it has stood without a red light
    STOPPED,  # s it has stood at a stop line
    ANTICIPATION,  # s it looks ahead at what others will do
    PREVIOUS_LANE,  # the lane its tail may still be on, or -1
    WANDER,  # m steady lateral offset
    CUT_GAP,  # share of a polite gap it takes for a lane change
    COOLDOWN,  # s until it may change lane or brake at random again
    IGNORES,  # IGNORE_* flags
    PLANNED,  # m/s2 planned in this tick
) = range(24)
IGNORE_LIGHTS, IGNORE_ACTORS, IGNORE_JUNCTIONS = 1, 2, 4


@njit(cache=True, error_model="numpy")
def roll_driver(actors: Actors, row: int) -> None:
    """Roll a character for a new traffic vehicle; its timers start at zero."""
    rng = actors.actor_rng
    driver = actors.traffic[row]
    driver[:] = 0.0
    driver[DESIRED] = 0.75 + 0.35 * draw(rng, row)
    driver[HEADWAY] = 0.9 + 0.9 * draw(rng, row)
    driver[MIN_GAP] = 1.6 + 1.4 * draw(rng, row)
    driver[MAX_ACCEL] = 1.3 + 0.9 * draw(rng, row)
    driver[COMFORT] = 1.8 + 0.9 * draw(rng, row)
    driver[LATERAL] = 1.8 + 1.2 * draw(rng, row)
    driver[BRAKE_RATE] = 0.02 * draw(rng, row) ** 2
    driver[CHANGE_RATE] = 0.08 * draw(rng, row)
    driver[ANTICIPATION] = 1.0 + 1.4 * draw(rng, row)
    driver[WANDER] = 0.3 * (draw(rng, row) - 0.5)
    driver[CUT_GAP] = 0.25 + 0.75 * draw(rng, row)
    driver[SET_SPEED] = -1.0
