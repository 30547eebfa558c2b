"""Collisions: oriented boxes of actors against each other and against solid scenery.

Contacts are found by separating axes in the plane (heights must overlap too) and resolved at once:
boxes are pushed apart by their mass ratio, the relative normal speed is lost, cars with physics are thrown
and turned as rigid bodies, the town's own traffic stays in its lanes, walkers fall and lie where they fell: whoever
hit them hits them once, and does not push them along.
"""

# mypy: disable-error-code="no-any-return"
from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from drivesim.town.arrays import Actors
from drivesim.town.chassis import CHANGED, MASS_KG, YAW_INERTIA
from drivesim.town.drivers import BRAKE_DECEL, BRAKE_LEFT, CHANGE_LEFT, CHANGE_TOTAL, COOLDOWN, OFFSET_FROM
from drivesim.town.motion import LATERAL, SLIDING
from drivesim.town.state import (
    KIND_FREE,
    KIND_VEHICLE,
    KIND_WALKER,
    POLICY_EXTERNAL,
    POLICY_KINEMATIC,
    POLICY_TRAFFIC,
    POLICY_WALKER,
)  # fmt: skip
from drivesim.town.walkers import MODE_FALLEN, WALK_MODE, WALK_TIMER, is_fallen, walks

MAX_CONTACTS = 256
CRASH_STOP_S, FALL_S = 4.0, 5.0
RISE_S = 1.0  # who lies under somebody stays there at least so long
FALL_MPS = 0.8  # a walker that is pushed to more than this falls
CONTACT = np.dtype([("row_a", np.int32), ("row_b", np.int32), ("impulse", np.float64, 3), ("normal", np.float64, 3)])
F32 = NDArray[np.float32]
RESTITUTION, CONTACT_FRICTION = 0.1, 0.3
SLIP_MPS, SLIP_RAD_S = 0.3, 0.1  # a blow below both does not break a tyre's hold


class Solids(NamedTuple):
    """Static boxes with a uniform grid over them (CSR by cell, row-major)."""

    box: NDArray[np.float64]  # (n, 6) x, y, yaw, half length, half width, height
    origin_m: NDArray[np.float64]  # (2,)
    shape: NDArray[np.int64]  # (2,) rows, columns
    start: NDArray[np.int32]
    member: NDArray[np.int32]


SOLID_CELL_M = 16.0


def solids_of(boxes: NDArray[np.float64] | None) -> Solids:
    """Index static boxes (n, 6: x, y, yaw, half length, half width, height) by cell; None means no scenery."""
    box = np.zeros((0, 6)) if boxes is None else np.ascontiguousarray(boxes, np.float64)
    if box.ndim != 2 or box.shape[1] != 6:
        raise ValueError(f"solids must be (n, 6): x, y, yaw, half_length, half_width, height; got {box.shape}")
    if len(box) == 0:
        return Solids(box, np.zeros(2), np.zeros(2, np.int64), np.zeros(1, np.int32), np.zeros(0, np.int32))
    reach = np.hypot(box[:, 3], box[:, 4])
    low = (box[:, :2] - reach[:, None]).min(0)
    high = (box[:, :2] + reach[:, None]).max(0)
    columns, rows = (np.floor((high - low) / SOLID_CELL_M).astype(np.int64) + 1).tolist()
    start, member = _index_boxes(box, low, rows, columns)
    return Solids(box, low, np.array([rows, columns], np.int64), start, member)


@njit(cache=True, error_model="numpy")
def _index_boxes(
    box: NDArray[np.float64], low: NDArray[np.float64], rows: int, columns: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    count = np.zeros(rows * columns + 1, np.int32)
    for fill in range(2):
        if fill == 1:
            for i in range(rows * columns):
                count[i + 1] += count[i]
            member = np.zeros(count[-1], np.int32)
            cursor = count[:-1].copy()
        for k in range(len(box)):
            reach = math.hypot(box[k, 3], box[k, 4])
            for r in range(
                int((box[k, 1] - reach - low[1]) / SOLID_CELL_M), int((box[k, 1] + reach - low[1]) / SOLID_CELL_M) + 1
            ):
                for c in range(
                    int((box[k, 0] - reach - low[0]) / SOLID_CELL_M),
                    int((box[k, 0] + reach - low[0]) / SOLID_CELL_M) + 1,
                ):
                    cell = min(r, rows - 1) * columns + min(c, columns - 1)
                    if fill == 0:
                        count[cell + 1] += 1
                    else:
                        member[cursor[cell]] = k
                        cursor[cell] += 1
    return count, member


@njit(cache=True, error_model="numpy")
def box_overlap(
    ax: float, ay: float, ayaw: float, al: float, aw: float, bx: float, by: float, byaw: float, bl: float, bw: float
) -> tuple[float, float, float]:
    """Penetration depth and unit normal (from a to b) of two boxes in the plane; depth <= 0 where they are apart."""
    dx, dy = bx - ax, by - ay
    best, nx, ny = 1e18, 1.0, 0.0
    for k in range(4):
        yaw = (ayaw if k < 2 else byaw) + (0.5 * math.pi if k % 2 == 1 else 0.0)
        c, s = math.cos(yaw), math.sin(yaw)
        reach = (
            al * abs(math.cos(yaw - ayaw)) + aw * abs(math.sin(yaw - ayaw))
            + bl * abs(math.cos(yaw - byaw)) + bw * abs(math.sin(yaw - byaw))
        )  # fmt: skip
        along = c * dx + s * dy
        depth = reach - abs(along)
        if depth <= 0.0:
            return depth, 0.0, 0.0
        if depth < best:
            sign = 1.0 if along >= 0.0 else -1.0
            best, nx, ny = depth, sign * c, sign * s
    return best, nx, ny


@njit(cache=True, error_model="numpy")
def overlap_of_rows(actors: Actors, a: int, b: int) -> tuple[float, float, float]:
    """`box_overlap` of two actor rows; depth 0 where their heights do not meet."""
    low = max(actors.xyz[a, 2], actors.xyz[b, 2])
    high = min(actors.xyz[a, 2] + 2.0 * actors.half_size[a, 2], actors.xyz[b, 2] + 2.0 * actors.half_size[b, 2])
    reach = (math.hypot(actors.half_size[a, 0], actors.half_size[a, 1])
             + math.hypot(actors.half_size[b, 0], actors.half_size[b, 1]))  # fmt: skip
    dx, dy = actors.xyz[b, 0] - actors.xyz[a, 0], actors.xyz[b, 1] - actors.xyz[a, 1]
    if high <= low or dx * dx + dy * dy >= reach * reach:
        return 0.0, 0.0, 0.0
    return box_overlap(
        actors.xyz[a, 0], actors.xyz[a, 1], actors.rotation[a, 2], actors.half_size[a, 0], actors.half_size[a, 1],
        actors.xyz[b, 0], actors.xyz[b, 1], actors.rotation[b, 2], actors.half_size[b, 0], actors.half_size[b, 1],
    )  # fmt: skip


@njit(cache=True, error_model="numpy")
def _mass_kg(actors: Actors, row: int, models: F32) -> float:
    if actors.physics[row, CHANGED] > 0.0:
        return actors.physics[row, MASS_KG]
    return models[actors.model[row], MASS_KG]


@njit(cache=True, error_model="numpy")
def _inverse_mass(actors: Actors, row: int, models: F32) -> float:
    """0 for what nothing can move."""
    if row < 0 or (actors.policy[row] == POLICY_KINEMATIC and actors.kind[row] != KIND_WALKER):
        return 0.0
    return 1.0 / _mass_kg(actors, row, models)


@njit(cache=True, error_model="numpy")
def _inverse_inertia(actors: Actors, row: int, models: F32) -> float:
    """Of what a blow off its middle turns: cars with physics; 0 for all else."""
    if row < 0 or actors.kind[row] != KIND_VEHICLE or actors.policy[row] != POLICY_EXTERNAL:
        return 0.0
    car = actors.physics[row] if actors.physics[row, CHANGED] > 0.0 else models[actors.model[row]]
    return 1.0 / car[YAW_INERTIA]


@njit(cache=True, error_model="numpy")
def _corners_inside(
    ax: float, ay: float, ayaw: float, al: float, aw: float, bx: float, by: float, byaw: float, bl: float, bw: float
) -> tuple[float, float, int]:
    """Sum of the corners of box a that are in box b, and their number."""
    x, y, count = 0.0, 0.0, 0
    ca, sa, cb, sb = math.cos(ayaw), math.sin(ayaw), math.cos(byaw), math.sin(byaw)
    for i in range(4):
        along, across = (al if i % 2 == 0 else -al), (aw if i < 2 else -aw)
        px, py = ax + ca * along - sa * across, ay + sa * along + ca * across
        dx, dy = px - bx, py - by
        if abs(cb * dx + sb * dy) <= bl and abs(cb * dy - sb * dx) <= bw:
            x, y, count = x + px, y + py, count + 1
    return x, y, count


@njit(cache=True, error_model="numpy")
def touch_point(
    ax: float, ay: float, ayaw: float, al: float, aw: float, bx: float, by: float, byaw: float, bl: float, bw: float
) -> tuple[float, float]:
    """Where two overlapping boxes touch: the mean of the corners of each that are in the other."""
    x1, y1, n1 = _corners_inside(ax, ay, ayaw, al, aw, bx, by, byaw, bl, bw)
    x2, y2, n2 = _corners_inside(bx, by, byaw, bl, bw, ax, ay, ayaw, al, aw)
    if n1 + n2 == 0:  # two boxes that cross
        return 0.5 * (ax + bx), 0.5 * (ay + by)
    return (x1 + x2) / (n1 + n2), (y1 + y2) / (n1 + n2)


@njit(cache=True, error_model="numpy")
def _push_apart(actors: Actors, row: int, push_x: float, push_y: float) -> None:
    """Move an actor out of another's box (m)."""
    actors.xyz[row, 0] += push_x
    actors.xyz[row, 1] += push_y
    if actors.policy[row] == POLICY_TRAFFIC:
        c, s = math.cos(actors.rotation[row, 2]), math.sin(actors.rotation[row, 2])
        actors.lane_s[row] = max(actors.lane_s[row] + c * push_x + s * push_y, 0.0)
        actors.lane_offset[row] += c * push_y - s * push_x
        actors.traffic[row, OFFSET_FROM] = actors.lane_offset[row]
        actors.traffic[row, CHANGE_TOTAL] = actors.traffic[row, CHANGE_LEFT] = 3.0


@njit(cache=True, error_model="numpy")
def _strike(actors: Actors, row: int, jx: float, jy: float, turn: float, inverse_mass: float) -> None:
    """Give one actor its share of an impulse (N s); `turn` is the change of its turn rate (rad/s)."""
    if inverse_mass == 0.0:
        return
    yaw = actors.rotation[row, 2]
    c, s = math.cos(yaw), math.sin(yaw)
    dvx, dvy = jx * inverse_mass, jy * inverse_mass
    if actors.policy[row] == POLICY_EXTERNAL and actors.kind[row] != KIND_WALKER:
        actors.velocity[row, 0] += dvx
        actors.velocity[row, 1] += dvy
        if actors.kind[row] == KIND_VEHICLE:
            actors.yaw_rate[row] += turn
            _let_go(actors, row, c * dvx + s * dvy, c * dvy - s * dvx, turn)
        else:
            actors.speed[row] = math.hypot(actors.velocity[row, 0], actors.velocity[row, 1])
    elif actors.kind[row] == KIND_VEHICLE:  # the town's own traffic stays in its lane
        along = c * dvx + s * dvy
        actors.speed[row] += along
        actors.velocity[row, 0] += along * c
        actors.velocity[row, 1] += along * s
    if actors.policy[row] == POLICY_TRAFFIC:
        actors.speed[row] = max(actors.speed[row], 0.0)
        traffic = actors.traffic[row]
        if math.hypot(jx, jy) * inverse_mass > 0.3:
            traffic[BRAKE_DECEL], traffic[BRAKE_LEFT], traffic[COOLDOWN] = 6.0, CRASH_STOP_S, 15.0
    if actors.kind[row] == KIND_WALKER:
        actors.velocity[row] = 0.0
        actors.speed[row] = 0.0
        if walks(actors, row) and math.hypot(jx, jy) * inverse_mass > FALL_MPS:
            actors.traffic[row, WALK_MODE], actors.traffic[row, WALK_TIMER] = MODE_FALLEN, FALL_S
            actors.rotation[row, 0] = 0.5 * math.pi  # on the side


@njit(cache=True, error_model="numpy")
def _let_go(actors: Actors, row: int, along: float, across: float, turn: float) -> None:
    """A car that is thrown to the side slips; a blow along it leaves it rolling."""
    motion = actors.motion[row]
    actors.speed[row] += along
    if motion[SLIDING] > 0.0:
        motion[LATERAL] += across
    elif abs(across) > SLIP_MPS or abs(turn) > SLIP_RAD_S:
        c, s = math.cos(actors.rotation[row, 2]), math.sin(actors.rotation[row, 2])
        motion[SLIDING] = 1.0
        motion[LATERAL] = c * actors.velocity[row, 1] - s * actors.velocity[row, 0]
    else:  # the tyres take it at once
        c, s = math.cos(actors.rotation[row, 2]), math.sin(actors.rotation[row, 2])
        actors.velocity[row, 0] += s * across
        actors.velocity[row, 1] -= c * across
        actors.yaw_rate[row] -= turn


@njit(cache=True, error_model="numpy")
def _contact(
    actors: Actors, a: int, b: int, depth: float, nx: float, ny: float, x: float, y: float, models: F32,
    values: NDArray[np.float64],
) -> None:  # fmt: skip
    """Resolve one contact at x, y; b = -1 is scenery. Writes impulse on a (3) and normal (3) into `values`.

    Newton's restitution along the normal, Coulomb's friction across it; neither gives more than it takes.
    """
    ia, ib = _inverse_mass(actors, a, models), _inverse_mass(actors, b, models)
    wa, wb = _inverse_inertia(actors, a, models), _inverse_inertia(actors, b, models)
    ax, ay = x - actors.xyz[a, 0], y - actors.xyz[a, 1]
    bx, by, vx, vy = 0.0, 0.0, 0.0, 0.0
    if b >= 0:
        bx, by = x - actors.xyz[b, 0], y - actors.xyz[b, 1]
        rate = actors.yaw_rate[b] if wb > 0.0 else 0.0
        vx, vy = actors.velocity[b, 0] - rate * by, actors.velocity[b, 1] + rate * bx
    rate = actors.yaw_rate[a] if wa > 0.0 else 0.0
    vx, vy = actors.velocity[a, 0] - rate * ay - vx, actors.velocity[a, 1] + rate * ax - vy
    arm_a, arm_b = ax * ny - ay * nx, bx * ny - by * nx
    total = ia + ib + wa * arm_a * arm_a + wb * arm_b * arm_b
    jn = max(vx * nx + vy * ny, 0.0) * (1.0 + RESTITUTION) / total if total > 0.0 else 0.0
    jx, jy = -jn * nx, -jn * ny
    if jn > 0.0 and wa + wb > 0.0:
        tx, ty = -ny, nx
        across_a, across_b = ax * ty - ay * tx, bx * ty - by * tx
        coupled = wa * arm_a * across_a + wb * arm_b * across_b  # the normal blow turns, too
        sliding = vx * tx + vy * ty - jn * coupled
        jt = sliding / (ia + ib + wa * across_a * across_a + wb * across_b * across_b)
        jt = min(max(jt, -CONTACT_FRICTION * jn), CONTACT_FRICTION * jn)
        jx, jy = jx - jt * tx, jy - jt * ty
    values[0], values[1], values[2] = jx, jy, 0.0
    values[3], values[4], values[5] = nx, ny, 0.0
    push = (depth + 0.01) / (ia + ib) if ia + ib > 0.0 else 0.0
    _push_apart(actors, a, -push * ia * nx, -push * ia * ny)
    _strike(actors, a, jx, jy, wa * (ax * jy - ay * jx), ia)
    if b >= 0:
        _push_apart(actors, b, push * ib * nx, push * ib * ny)
        _strike(actors, b, -jx, -jy, -wb * (bx * jy - by * jx), ib)


@njit(cache=True, error_model="numpy")
def _stays_down(actors: Actors, row: int) -> None:
    if is_fallen(actors, row):
        actors.traffic[row, WALK_TIMER] = max(actors.traffic[row, WALK_TIMER], RISE_S)


@njit(cache=True, error_model="numpy", nogil=True)
def resolve_contacts(
    actors: Actors, solids: Solids, models: F32, rows: NDArray[np.int32], values: NDArray[np.float64]
) -> int:
    """Find and resolve the contacts of this tick; fills rows (C, 2) and values (C, 6), returns their number."""
    live = np.flatnonzero(actors.kind != KIND_FREE)
    reach = np.sqrt(actors.half_size[live, 0] ** 2 + actors.half_size[live, 1] ** 2)
    order = np.argsort(actors.xyz[live, 0] - reach, kind="mergesort")
    moves = np.zeros(len(live), np.bool_)
    for i in range(len(live)):
        moves[i] = actors.speed[live[i]] != 0.0 or actors.motion[live[i], SLIDING] > 0.0
        moves[i] = moves[i] or is_fallen(actors, live[i])  # whoever stands on them keeps them down
    count = 0
    for i in range(len(order)):
        a = live[order[i]]
        right = actors.xyz[a, 0] + reach[order[i]]
        for j in range(i + 1, len(order)):
            b = live[order[j]]
            if actors.xyz[b, 0] - reach[order[j]] > right + 1.0:  # pushes of this tick are below a metre
                break
            if not (moves[order[i]] or moves[order[j]]):  # what stands does not collide with what stands
                continue
            if actors.policy[a] == POLICY_WALKER and actors.policy[b] == POLICY_WALKER:
                continue  # the town's own walkers slip past each other
            # checked here, because a call that takes all arrays costs more than most pairs are worth
            dx, dy = actors.xyz[b, 0] - actors.xyz[a, 0], actors.xyz[b, 1] - actors.xyz[a, 1]
            near = reach[order[i]] + reach[order[j]] + 1e-6
            if dx * dx + dy * dy >= near * near:
                continue
            depth, nx, ny = overlap_of_rows(actors, a, b)
            if depth > 0.0 and (is_fallen(actors, a) or is_fallen(actors, b)):
                _stays_down(actors, a)
                _stays_down(actors, b)
            elif depth > 0.0 and count < len(rows):
                rows[count, 0], rows[count, 1] = a, b
                x, y = touch_point(
                    actors.xyz[a, 0], actors.xyz[a, 1], actors.rotation[a, 2], actors.half_size[a, 0],
                    actors.half_size[a, 1], actors.xyz[b, 0], actors.xyz[b, 1], actors.rotation[b, 2],
                    actors.half_size[b, 0], actors.half_size[b, 1],
                )  # fmt: skip
                _contact(actors, a, b, depth, nx, ny, x, y, models, values[count])
                moves[order[i]] = moves[order[j]] = True
                count += 1
    for i in range(len(live)):
        if actors.speed[live[i]] != 0.0 or actors.motion[live[i], SLIDING] > 0.0:
            count = _against_scenery(actors, solids, live[i], models, rows, values, count)
    return count


@njit(cache=True, error_model="numpy")
def _against_scenery(
    actors: Actors, solids: Solids, a: int, models: F32, rows: NDArray[np.int32],
    values: NDArray[np.float64], count: int,
) -> int:  # fmt: skip
    row = math.floor((actors.xyz[a, 1] - solids.origin_m[1]) / SOLID_CELL_M)
    column = math.floor((actors.xyz[a, 0] - solids.origin_m[0]) / SOLID_CELL_M)
    last = -1
    reach = math.hypot(actors.half_size[a, 0], actors.half_size[a, 1])
    for r in range(max(row - 1, 0), min(row + 1, solids.shape[0] - 1) + 1):
        for c in range(max(column - 1, 0), min(column + 1, solids.shape[1] - 1) + 1):
            cell = r * solids.shape[1] + c
            for k in range(solids.start[cell], solids.start[cell + 1]):
                box = solids.box[solids.member[k]]
                dx, dy = box[0] - actors.xyz[a, 0], box[1] - actors.xyz[a, 1]
                near = reach + math.hypot(box[3], box[4])
                if dx * dx + dy * dy >= near * near:  # most boxes; their corners need no sines
                    continue
                depth, nx, ny = box_overlap(
                    actors.xyz[a, 0], actors.xyz[a, 1], actors.rotation[a, 2], actors.half_size[a, 0],
                    actors.half_size[a, 1], box[0], box[1], box[2], box[3], box[4],
                )  # fmt: skip
                if depth > 0.0 and solids.member[k] != last and count < len(rows):
                    last = solids.member[k]
                    rows[count, 0], rows[count, 1] = a, -1
                    x, y = touch_point(
                        actors.xyz[a, 0], actors.xyz[a, 1], actors.rotation[a, 2], actors.half_size[a, 0],
                        actors.half_size[a, 1], box[0], box[1], box[2], box[3], box[4],
                    )  # fmt: skip
                    _contact(actors, a, -1, depth, nx, ny, x, y, models, values[count])
                    count += 1
    return count
