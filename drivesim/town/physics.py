"""Motion of actors that somebody steers from outside: cars, walkers, and things that were pushed.

A car within its grip is a kinematic bicycle: the rear axle rolls along the heading, the centre of the box
rides half a wheelbase ahead of it, and what the corner leaves of the grip caps the brakes (a friction
circle). Where more is asked of the tyres than they have, or a script has changed what the car is made of,
drivesim.town.tyres takes over until it rolls again. Height and pitch follow the road under both axles, and
gravity pulls along the slope.
"""

# mypy: disable-error-code="no-any-return"
from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from drivesim.town.arrays import Actors, Roads, locate, wrap_angle
from drivesim.town.chassis import (
    AIR,
    CHANGED,
    GRIP_FRONT,
    GRIP_REAR,
    MOST_LONGITUDINAL,
    PUSH,
    REAR_GRIP,
    ROLLING,
    TOP,
    friction_factor,
)
from drivesim.town.chassis import (
    BRAKE as BRAKE_SHARE,
)
from drivesim.town.chassis import (
    HAND_BRAKE as HAND_BRAKE_SHARE,
)
from drivesim.town.chassis import (
    MAX_STEER_RAD as LOCK_RAD,
)
from drivesim.town.drive_train import push_factor, steering_share
from drivesim.town.flight import carry, fly, touch_down
from drivesim.town.friction import any_volume, friction_at
from drivesim.town.motion import (
    AIRBORNE,
    FRICTION,
    GROUND,
    HELD,
    HELD_X,
    HELD_Y,
    SLIDING,
    TRACKING,
    TURNED,
    WEIGHTLESS,
)
from drivesim.town.speed_control import track_speed, tracked_steer
from drivesim.town.state import (
    KIND_PROP,
    KIND_VEHICLE,
    KIND_WALKER,
    POLICY_EXTERNAL,
    POLICY_KINEMATIC,
    POLICY_PARKED,
)  # fmt: skip
from drivesim.town.tyres import begin_sliding, is_calm, slide
from drivesim.town.walkers import MODE_STROLL, WALK_MODE, WALK_TIMER, is_fallen
from drivesim.town.weather import DEPOSITS, WETNESS

F32 = NDArray[np.float32]
MAX_STEER_RAD = math.radians(45.0)  # steer = 1
STEER_RATE_RAD_S = 4.0
MAX_ACCELERATION_MPS2 = 4.5
MAX_SPEED_MPS = 55.0
MAX_REVERSE_MPS = 12.0
MAX_BRAKING_MPS2 = 8.0
HAND_BRAKING_MPS2 = 6.0
DRAG_ROLLING_MPS2, DRAG_AIR_1PM = 0.15, 0.003
STANDING_MPS, STANDING_HOLD_MPS2 = 0.3, 1.5
GRAVITY_MPS2 = 9.81
WALKER_ACCELERATION_MPS2 = 8.0
PROP_FRICTION_MPS2 = 5.0
CHANGED_SLIDES_MPS, CHANGED_ROLLS_MPS = 4.0, 3.0  # tyres of a changed car slip above the one, roll below the other
HAND_BRAKE_TURN_MPS2, HAND_BRAKE_MPS = 1.0, 3.0  # a hand brake in a corner lets the rear go

THROTTLE, STEER, BRAKE, HAND_BRAKE, REVERSE, MANUAL_GEAR, GEAR = range(7)  # columns of TownState.control


@njit(cache=True, error_model="numpy")
def drive_push(control: NDArray[np.float64], car: F32, ordinary: F32, changed: bool, speed_mps: float) -> float:
    """Drive of the engine in m/s2, signed along the heading."""
    manual = control[MANUAL_GEAR] > 0.5
    backwards = control[REVERSE] > 0.5 or (manual and control[GEAR] < 0.0)
    if manual and control[GEAR] == 0.0:
        return 0.0
    throttle = min(max(control[THROTTLE], 0.0), 1.0)
    sign = -1.0 if backwards else 1.0
    top = MAX_REVERSE_MPS if backwards else MAX_SPEED_MPS
    if changed:
        top *= car[TOP]
    push = MAX_ACCELERATION_MPS2 * throttle * min(max(1.0 - sign * speed_mps / max(top, 1e-3), 0.0), 1.0)
    if changed or manual:
        gear = 1 if backwards else int(control[GEAR]) if manual else 0
        push *= car[PUSH] * push_factor(car, ordinary, gear, max(sign * speed_mps, 0.0))
    if changed:
        push = min(push, car[MOST_LONGITUDINAL])
    return sign * push


@njit(cache=True, error_model="numpy")
def braking(control: NDArray[np.float64], car: F32, changed: bool) -> float:
    """Deceleration in m/s2 that the brakes ask for."""
    brake = MAX_BRAKING_MPS2 * min(max(control[BRAKE], 0.0), 1.0)
    if changed:
        brake = min(brake * car[BRAKE_SHARE], car[MOST_LONGITUDINAL])
    if control[HAND_BRAKE] > 0.5:
        brake = max(brake, HAND_BRAKING_MPS2 * (car[HAND_BRAKE_SHARE] if changed else 1.0))
    return brake


@njit(cache=True, error_model="numpy")
def longitudinal(
    speed_mps: float, push_mps2: float, braking_mps2: float, drag_mps2: float, slope_rad: float, dt_s: float
) -> float:
    """The new signed speed after dt_s under drive, brakes, drag and gravity; what resists never reverses the motion."""
    freely = speed_mps + (push_mps2 - GRAVITY_MPS2 * math.sin(slope_rad)) * dt_s
    loss = (braking_mps2 + drag_mps2) * dt_s
    if abs(freely) <= loss:
        return 0.0
    return freely - math.copysign(loss, freely)


@njit(cache=True, error_model="numpy")
def grip_of(weather: np.ndarray) -> float:
    """Tyre grip in m/s2; equals drivesim.town.weather.grip."""
    water = max(weather[DEPOSITS], weather[WETNESS], 0.0) / 100.0
    return 8.3 - 2.1 * min(water, 1.0)


@njit(cache=True, error_model="numpy")
def roll(actors: Actors, row: int, push: float, brake: float, drag: float, grip_mps2: float, dt_s: float) -> None:
    """Advance one bicycle within its grip by dt_s in the plane; `settle` puts it on the ground afterwards."""
    base = max(actors.wheelbase[row], 0.5)
    speed = actors.speed[row]
    curvature = math.tan(actors.steer_angle[row]) / base
    sideways = min(abs(curvature) * speed * speed, grip_mps2)
    spare = math.sqrt(max(grip_mps2 * grip_mps2 - sideways * sideways, 0.0))
    braking_mps2 = min(brake, max(spare, 0.3 * grip_mps2))
    new_speed = longitudinal(speed, push, braking_mps2, drag, actors.rotation[row, 1], dt_s)
    mean = 0.5 * (speed + new_speed)
    limit = grip_mps2 / max(mean * mean, 1e-6)
    curvature = min(max(curvature, -limit), limit)
    yaw = actors.rotation[row, 2]
    turn = mean * curvature * dt_s
    rear_x = actors.xyz[row, 0] - 0.5 * base * math.cos(yaw) + mean * dt_s * math.cos(yaw + 0.5 * turn)
    rear_y = actors.xyz[row, 1] - 0.5 * base * math.sin(yaw) + mean * dt_s * math.sin(yaw + 0.5 * turn)
    yaw = wrap_angle(yaw + turn)
    rate = new_speed * curvature
    actors.xyz[row, 0] = rear_x + 0.5 * base * math.cos(yaw)
    actors.xyz[row, 1] = rear_y + 0.5 * base * math.sin(yaw)
    actors.rotation[row, 2] = yaw
    actors.yaw_rate[row] = rate
    actors.speed[row] = new_speed
    _set_motion(actors, row, new_speed * math.cos(yaw) - 0.5 * base * rate * math.sin(yaw),
                new_speed * math.sin(yaw) + 0.5 * base * rate * math.cos(yaw), dt_s)  # fmt: skip


@njit(cache=True, error_model="numpy")
def _loses_grip(actors: Actors, row: int, changed: bool, push: float, grip_mps2: float) -> bool:
    """Is more asked of the tyres than they have? Brakes never ask for more: they are antilock brakes."""
    speed, motion = actors.speed[row], actors.motion[row]
    sideways = abs(math.tan(actors.steer_angle[row])) / max(actors.wheelbase[row], 0.5) * speed * speed
    if sideways > grip_mps2 or motion[TURNED] > 0.0 or (push * push > max(grip_mps2**2 - sideways * sideways, 0.0)):
        return True
    if changed and abs(speed) > CHANGED_SLIDES_MPS:
        return True
    return actors.control[row, HAND_BRAKE] > 0.5 and sideways > HAND_BRAKE_TURN_MPS2 and abs(speed) > HAND_BRAKE_MPS


@njit(cache=True, error_model="numpy")
def _steer(actors: Actors, row: int, car: F32, changed: bool, dt_s: float) -> None:
    lock = car[LOCK_RAD] * steering_share(car, actors.speed[row]) if changed else MAX_STEER_RAD
    motion = actors.motion[row]
    if motion[TRACKING] > 0.0:
        control = actors.control[row]
        throttle, brake, reverse = track_speed(motion, actors.speed[row], control[REVERSE] > 0.5, dt_s)
        control[STEER] = tracked_steer(motion, control[STEER], lock, dt_s)
        control[THROTTLE], control[BRAKE], control[HAND_BRAKE], control[MANUAL_GEAR] = throttle, brake, 0.0, 0.0
        control[REVERSE] = 1.0 if reverse else 0.0
    wanted = min(max(actors.control[row, STEER], -1.0), 1.0) * lock
    change = min(max(wanted - actors.steer_angle[row], -STEER_RATE_RAD_S * dt_s), STEER_RATE_RAD_S * dt_s)
    actors.steer_angle[row] += change


@njit(cache=True, error_model="numpy")
def step_vehicle(actors: Actors, row: int, models: F32, grip_mps2: float, dt_s: float) -> None:
    """Advance one vehicle by dt_s in the plane, rolling, slipping, flying or carried."""
    motion, control = actors.motion[row], actors.control[row]
    ordinary = models[actors.model[row]]
    changed = actors.physics[row, CHANGED] > 0.0
    car = actors.physics[row] if changed else ordinary
    speed = actors.speed[row]
    _steer(actors, row, car, changed, dt_s)
    air = DRAG_AIR_1PM * (car[AIR] if changed else 1.0)
    front = grip_mps2 * (car[GRIP_FRONT] if changed else 1.0)
    rear, hardly = grip_mps2 * car[GRIP_REAR], car[ROLLING] if changed else 1.0
    if motion[FRICTION] > 0.0:
        front = grip_mps2 * friction_factor(motion[FRICTION] - 1.0)
        rear, hardly = REAR_GRIP * front, min(front / grip_mps2, 1.0)
    if motion[HELD] > 0.0:
        carry(actors, row, max(actors.wheelbase[row], 0.5), front, dt_s)
    elif motion[AIRBORNE] > 0.0 or motion[WEIGHTLESS] > 0.0:
        fly(actors, row, air, dt_s)
    else:
        push, brake = drive_push(control, car, ordinary, changed, speed), braking(control, car, changed)
        drag = DRAG_ROLLING_MPS2 * hardly
        # standing still with a free drive train still holds on any road slope, as an automatic gearbox does
        standing = STANDING_HOLD_MPS2 * hardly if control[THROTTLE] <= 0.0 and abs(speed) < STANDING_MPS else 0.0
        if motion[SLIDING] > 0.0 or _loses_grip(actors, row, changed, push, front):
            begin_sliding(actors, row, car)
            held = control[HAND_BRAKE] > 0.5
            locked = held and HAND_BRAKING_MPS2 * car[HAND_BRAKE_SHARE] > 0.5 * rear
            foot = MAX_BRAKING_MPS2 * min(max(control[BRAKE], 0.0), 1.0) * car[BRAKE_SHARE] if locked else brake
            slide(actors, row, car, push, foot + standing, locked, drag, air, front, rear, dt_s)
            rolls = not changed or abs(actors.speed[row]) < CHANGED_ROLLS_MPS
            rolls = rolls and (not held or abs(actors.speed[row]) < STANDING_MPS)
            if rolls and is_calm(actors, row, car, push, front):
                motion[SLIDING] = 0.0
        else:
            roll(actors, row, push, brake, drag + air * speed * speed + standing, front, dt_s)
    motion[TURNED] = 0.0


@njit(cache=True, error_model="numpy")
def _set_motion(actors: Actors, row: int, vx: float, vy: float, dt_s: float) -> None:
    actors.acceleration[row, 0] = (vx - actors.velocity[row, 0]) / dt_s
    actors.acceleration[row, 1] = (vy - actors.velocity[row, 1]) / dt_s
    actors.velocity[row, 0] = vx
    actors.velocity[row, 1] = vy


@njit(cache=True, error_model="numpy")
def settle(roads: Roads, actors: Actors, row: int, dt_s: float) -> None:
    """Put a vehicle on the road below it (z, pitch) and note its lane; an unknown ground leaves it level."""
    x, y, z = actors.xyz[row, 0], actors.xyz[row, 1], actors.xyz[row, 2]
    yaw = actors.rotation[row, 2]
    lane, s, offset, _ = locate(roads, x, y, z, yaw)
    actors.lane[row], actors.lane_s[row], actors.lane_offset[row] = lane, s, offset
    reach = 0.5 * max(actors.wheelbase[row], 0.5)
    dx, dy = reach * math.cos(yaw), reach * math.sin(yaw)
    front = locate(roads, x + dx, y + dy, z, yaw)[3]
    rear = locate(roads, x - dx, y - dy, z, yaw)[3]
    height = 0.5 * (front + rear)
    if actors.motion[row, AIRBORNE] > 0.0 or actors.motion[row, WEIGHTLESS] > 0.0:
        touch_down(actors, row, height if lane >= 0 else actors.motion[row, GROUND])
        return
    limit = 6.0 * dt_s  # a car falls or climbs at most this fast, so that odd road data cannot throw it
    new_z = z + min(max(height - z, -limit), limit)
    actors.velocity[row, 2] = (new_z - z) / dt_s
    actors.xyz[row, 2] = new_z
    actors.motion[row, GROUND] = new_z
    pitch = math.atan2(front - rear, 2.0 * reach)
    actors.rotation[row, 1] += min(max(pitch - actors.rotation[row, 1], -0.5 * dt_s), 0.5 * dt_s)
    actors.rotation[row, 0] *= max(1.0 - 2.0 * dt_s, 0.0)


@njit(cache=True, error_model="numpy")
def step_walker(roads: Roads, actors: Actors, row: int, dt_s: float) -> None:
    """A steered walker goes direction * speed and faces where it goes; one who was knocked down lies for a while."""
    if is_fallen(actors, row):
        actors.speed[row] = 0.0
        _set_motion(actors, row, 0.0, 0.0, dt_s)
        actors.traffic[row, WALK_TIMER] -= dt_s
        if actors.traffic[row, WALK_TIMER] <= 0.0:
            actors.traffic[row, WALK_MODE], actors.rotation[row, 0] = MODE_STROLL, 0.0
        return
    dx, dy = actors.walker_control[row, 0], actors.walker_control[row, 1]
    norm = math.hypot(dx, dy)
    speed = max(actors.walker_control[row, 3], 0.0)
    vx = dx / norm * speed if norm > 1e-6 else 0.0
    vy = dy / norm * speed if norm > 1e-6 else 0.0
    if norm > 1e-6:
        actors.rotation[row, 2] = math.atan2(dy, dx)
    if actors.motion[row, HELD] > 0.0:
        c, s = math.cos(actors.rotation[row, 2]), math.sin(actors.rotation[row, 2])
        ahead, aside = actors.motion[row, HELD_X], actors.motion[row, HELD_Y]
        vx, vy = c * ahead - s * aside, s * ahead + c * aside
    actors.speed[row] = math.hypot(vx, vy)
    _set_motion(actors, row, vx, vy, dt_s)
    actors.xyz[row, 0] += vx * dt_s
    actors.xyz[row, 1] += vy * dt_s
    if actors.speed[row] > 0.0:
        lane, _, _, ground = locate(roads, actors.xyz[row, 0], actors.xyz[row, 1], actors.xyz[row, 2], math.nan)
        if lane >= 0 and abs(ground - actors.xyz[row, 2]) < 2.0:
            step = 2.0 * dt_s
            actors.xyz[row, 2] += min(max(ground - actors.xyz[row, 2], -step), step)


@njit(cache=True, error_model="numpy")
def step_prop(actors: Actors, row: int, dt_s: float) -> None:
    """A thing with physics slides where it was pushed, until friction stops it."""
    total = math.hypot(actors.velocity[row, 0], actors.velocity[row, 1])
    kept = max(1.0 - PROP_FRICTION_MPS2 * dt_s / total, 0.0) if total > 0.0 else 0.0
    _set_motion(actors, row, actors.velocity[row, 0] * kept, actors.velocity[row, 1] * kept, dt_s)
    actors.velocity[row, 2] = 0.0
    actors.speed[row] = total * kept
    actors.xyz[row, 0] += actors.velocity[row, 0] * dt_s
    actors.xyz[row, 1] += actors.velocity[row, 1] * dt_s


@njit(cache=True, error_model="numpy", nogil=True)
def step_external(roads: Roads, actors: Actors, models: F32, dt_s: float) -> None:
    """Advance every actor that is steered from outside, and note the lanes of all that only stand or are carried.

    Args:
        roads: the network.
        actors: the state.
        models: (M, PHYSICS_COLUMNS) ordinary physics rows of the catalogue.
        dt_s: step.
    """
    grip = grip_of(actors.weather)
    volumes = any_volume(actors.friction)
    for row in range(len(actors.kind)):
        kind, policy = actors.kind[row], actors.policy[row]
        if kind == KIND_VEHICLE and policy == POLICY_EXTERNAL:
            if volumes or actors.motion[row, FRICTION] > 0.0:
                pose = actors.xyz[row]
                actors.motion[row, FRICTION] = friction_at(actors.friction, pose[0], pose[1], pose[2])
            step_vehicle(actors, row, models, grip, dt_s)
            settle(roads, actors, row, dt_s)
            actors.control[row, GEAR] = _reported_gear(actors.control[row])
        elif kind == KIND_WALKER and policy == POLICY_EXTERNAL:
            step_walker(roads, actors, row, dt_s)
        elif kind == KIND_VEHICLE and policy == POLICY_KINEMATIC:
            pose = actors.xyz[row]
            lane, s, offset, _ = locate(roads, pose[0], pose[1], pose[2], actors.rotation[row, 2])
            actors.lane[row], actors.lane_s[row], actors.lane_offset[row] = lane, s, offset
        elif kind == KIND_PROP and policy == POLICY_EXTERNAL:
            step_prop(actors, row, dt_s)
        elif kind == KIND_PROP or policy == POLICY_PARKED:
            actors.speed[row] = 0.0
            actors.velocity[row] = 0.0
            actors.acceleration[row] = 0.0


@njit(cache=True, error_model="numpy")
def _reported_gear(control: np.ndarray) -> float:
    if control[MANUAL_GEAR] > 0.5:
        return control[GEAR]
    return -1.0 if control[REVERSE] > 0.5 else 1.0
