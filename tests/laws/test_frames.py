"""The handedness change: there and back is where one was, and turns are turns."""

from __future__ import annotations

import math

import numpy as np
import pytest

from drivesim.datatypes import default_rig
from drivesim.geometry import Pose
from drivesim.worlds import carla_frames as frames


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def random_pose(rng: np.random.Generator) -> Pose:
    x, y, z = rng.normal(0.0, 80.0, 3)
    roll, pitch, yaw = *rng.uniform(-1.4, 1.4, 2), rng.uniform(-math.pi, math.pi)
    return Pose.from_xyz_rpy(x, y, z, roll, pitch, yaw)


def test_mirroring_twice_changes_nothing(rng: np.random.Generator) -> None:
    points = rng.normal(size=(7, 5, 3))
    np.testing.assert_array_equal(frames.mirrored(frames.mirrored(points)), points)
    np.testing.assert_array_equal(frames.mirrored_yaw(frames.mirrored_yaw(points)), points)


def test_a_pose_goes_to_carla_and_back(rng: np.random.Generator) -> None:
    for _ in range(50):
        pose = random_pose(rng)
        back = frames.pose_from_carla(*frames.pose_to_carla(pose))
        np.testing.assert_allclose(back.rotation, pose.rotation, atol=1e-9)
        np.testing.assert_allclose(back.translation_m, pose.translation_m, atol=1e-9)


def test_composition_is_kept_by_the_change_of_frame(rng: np.random.Generator) -> None:
    """A point in a body, mapped by our pose and mirrored, is the mirrored point mapped by CARLA's matrix."""
    carla = pytest.importorskip("carla")
    for _ in range(20):
        pose, point = random_pose(rng), rng.normal(0.0, 5.0, 3)
        matrix = np.array(frames.transform_from_pose(pose).get_matrix())
        theirs = matrix @ np.append(frames.mirrored(point), 1.0)
        np.testing.assert_allclose(frames.mirrored(pose.apply(point)), theirs[:3], atol=2e-4)
        back = frames.pose_from_transform(frames.transform_from_pose(pose))
        np.testing.assert_allclose(back.rotation, pose.rotation, atol=1e-5)
    assert carla.Transform is not None


def test_left_is_left() -> None:
    ahead_left = Pose.from_xyz_rpy(0.0, 0.0, 0.0, yaw_rad=math.radians(30.0))
    location, rotation = frames.pose_to_carla(Pose(ahead_left.rotation, np.array([1.0, 2.0, 0.0])))
    assert location[1] == -2.0, "our left is CARLA's negative y"
    assert math.degrees(rotation[2]) == pytest.approx(-30.0), "our left turn is CARLA's negative yaw"


def test_axle_and_center_are_inverse(rng: np.random.Generator) -> None:
    pose = random_pose(rng)
    back = frames.axle_from_center(frames.center_from_axle(pose, 1.44), 1.44)
    np.testing.assert_allclose(back.translation_m, pose.translation_m, atol=1e-12)


def test_cameras_sit_where_the_rig_says() -> None:
    """Mounted on the actor's origin, a camera has the same pose in the world as in the rig on the rear axle."""
    axle = Pose.from_xyz_rpy(12.0, -7.0, 0.4, 0.0, 0.05, 1.1)
    center = frames.center_from_axle(axle, 1.44)
    for camera in default_rig().cameras:
        body = axle.compose(frames.camera_body(camera))
        mounted = center.compose(frames.camera_mount(camera, 1.44))
        np.testing.assert_allclose(mounted.translation_m, body.translation_m, atol=1e-9)
        np.testing.assert_allclose(mounted.rotation, body.rotation, atol=1e-9)
    forward = frames.camera_body(default_rig().cameras[0]).rotation @ np.array([1.0, 0.0, 0.0])
    np.testing.assert_allclose(forward, [1.0, 0.0, 0.0], atol=1e-9)


def test_steering_changes_its_sign() -> None:
    pytest.importorskip("carla")
    from drivesim.datatypes import Control

    sent = frames.control_to_carla(Control(steer=0.3, throttle=0.5, brake=0.0))
    assert sent.steer == pytest.approx(-0.3)
    assert sent.throttle == pytest.approx(0.5)
