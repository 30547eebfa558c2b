"""The one handedness change of the house: CARLA's frame (left-handed, degrees on the wire) and ours.

    CARLA   x forward/east, y RIGHT, z up; yaw clockwise from above; pitch up positive; an actor's origin is near
            its box's centre
    ours    x forward/east, y LEFT, z up; yaw counter-clockwise; pitch down positive; the ego's origin is the
            rear axle's midpoint on the ground

Mirroring y is its own inverse, so most functions here serve both ways; the pairs that do not are named `*_from_carla`
and `*_to_carla`. Angles are radians unless the name says `_deg`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drivesim.datatypes import Camera, Control
from drivesim.datatypes.rig import BODY_FROM_OPTICAL
from drivesim.geometry import Pose

Array = NDArray[np.float64]


def mirrored(points: NDArray[np.floating[Any]]) -> Array:
    """Points or vectors (..., 2 or 3) of one frame in the other: y changes its sign. Its own inverse."""
    result = np.array(points, dtype=np.float64)
    result[..., 1] = -result[..., 1]
    return result


def mirrored_yaw(yaw_rad: Array | float) -> Array:
    """Headings (or yaw rates) of one frame in the other. Its own inverse."""
    return np.negative(np.asarray(yaw_rad, dtype=np.float64))


def pose_from_carla(location_m: Array, rotation_rad: Array) -> Pose:
    """Our pose of a CARLA location (3,) and rotation (3,) in the order roll, pitch, yaw."""
    roll, pitch, yaw = (float(angle) for angle in rotation_rad)
    x, y, z = (float(value) for value in location_m)
    return Pose.from_xyz_rpy(x, -y, z, roll, -pitch, -yaw)


def pose_to_carla(pose: Pose) -> tuple[Array, Array]:
    """Inverse of `pose_from_carla`: location (3,) and rotation (3,) roll, pitch, yaw in CARLA's frame."""
    r = pose.rotation
    pitch = math.asin(min(max(-float(r[2, 0]), -1.0), 1.0))
    roll = math.atan2(float(r[2, 1]), float(r[2, 2]))
    yaw = math.atan2(float(r[1, 0]), float(r[0, 0]))
    return mirrored(pose.translation_m), np.array([roll, -pitch, -yaw])


def pose_from_transform(transform: Any) -> Pose:
    """Our pose of a `carla.Transform`."""
    location, rotation = transform.location, transform.rotation
    angles = np.radians([rotation.roll, rotation.pitch, rotation.yaw])
    return pose_from_carla(np.array([location.x, location.y, location.z]), angles)


def transform_from_pose(pose: Pose) -> Any:
    """A `carla.Transform` of our pose."""
    import carla

    location, rotation_rad = pose_to_carla(pose)
    roll, pitch, yaw = (math.degrees(float(angle)) for angle in rotation_rad)
    x, y, z = (float(value) for value in location)
    return carla.Transform(carla.Location(x, y, z), carla.Rotation(pitch=pitch, yaw=yaw, roll=roll))


def transform_from_planar(x_m: float, y_m: float, z_m: float, yaw_rad: float) -> Any:
    """A `carla.Transform` of a place and heading in our frame, level."""
    import carla

    rotation = carla.Rotation(pitch=0.0, yaw=-math.degrees(yaw_rad), roll=0.0)
    return carla.Transform(carla.Location(x_m, -y_m, z_m), rotation)


def vector_to_carla(vector: Array) -> Any:
    """A `carla.Vector3D` of our vector (3,)."""
    import carla

    return carla.Vector3D(float(vector[0]), -float(vector[1]), float(vector[2]))


def control_to_carla(control: Control) -> Any:
    """A `carla.VehicleControl`; CARLA steers right with a positive value."""
    import carla

    steer, throttle, brake = -float(control.steer), float(control.throttle), float(control.brake)
    return carla.VehicleControl(throttle=throttle, steer=steer, brake=brake)


def center_from_axle(world_from_ego: Pose, rear_axle_to_center_m: float) -> Pose:
    """Pose of the box's centre (CARLA's actor origin) of a car whose rear axle is at `world_from_ego`; both ours."""
    return world_from_ego.compose(Pose(np.eye(3), np.array([rear_axle_to_center_m, 0.0, 0.0])))


def axle_from_center(world_from_center: Pose, rear_axle_to_center_m: float) -> Pose:
    """Inverse of `center_from_axle`."""
    return world_from_center.compose(Pose(np.eye(3), np.array([-rear_axle_to_center_m, 0.0, 0.0])))


def camera_body(camera: Camera) -> Pose:
    """`ego_from_body` of a camera: body axes x forward, y left, z up, which is what simulators are told."""
    return camera.ego_from_camera.compose(Pose(BODY_FROM_OPTICAL.T, np.zeros(3)))


def camera_mount(camera: Camera, rear_axle_to_center_m: float) -> Pose:
    """`actor_from_body` of a camera (ours): where it sits against the box's centre, for attaching it to the actor."""
    actor_from_ego = Pose(np.eye(3), np.array([-rear_axle_to_center_m, 0.0, 0.0]))
    return actor_from_ego.compose(camera_body(camera))
