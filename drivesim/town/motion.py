"""What a vehicle's motion remembers beyond pose and speed: the columns of `TownState.motion`.

All are 0 for a car that rolls in the ordinary way. Body frame: x ahead, y right, z up.
"""

from __future__ import annotations

(
    SLIDING,  # 1: the tyres slip (drivesim.town.tyres); LATERAL is then alive
    LATERAL,  # speed of the centre of mass to the right, m/s
    AIRBORNE,  # 1: off the ground, no tyre touches it
    WEIGHTLESS,  # 1: gravity is switched off
    HELD,  # 1: a constant velocity is held
    HELD_X,  # in the body frame, m/s
    HELD_Y,
    HELD_Z,
    TURNED,  # 1: TURN_RATE holds for the coming step
    TURN_RATE,  # rad/s
    FRICTION,  # 1 + tyre friction of the friction volume that the car is in; 0 outside of all
    TRACKING,  # 1: an Ackermann control steers
    TRACK_STEER,  # rad, right positive
    TRACK_STEER_SPEED,  # rad/s; 0: at once
    TRACK_SPEED,  # m/s, negative backwards
    TRACK_ACCELERATION,  # m/s2; 0: the controller's own limits
    TRACK_JERK,  # m/s3; 0: none
    TUNED,  # 1: the six gains below are a script's, else CARLA's defaults
    SPEED_KP,
    SPEED_KI,
    SPEED_KD,
    ACCELERATION_KP,
    ACCELERATION_KI,
    ACCELERATION_KD,
    TRACK_AGE,  # steps since tracking began, at most 1
    SPEED_SUM,  # memories of the two controllers
    SPEED_LAST,
    ACCELERATION_SUM,
    ACCELERATION_LAST,
    WANTED_ACCELERATION,
    PEDAL,
    GROUND,  # height of the ground where the vehicle last stood on it, m
) = range(32)
MOTION_COLUMNS = 32
