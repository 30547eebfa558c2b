"""Laws of floor 1: transforms, curves, boxes, the bicycle."""

import math

import numpy as np
import pytest

from drivesim.geometry import Polyline, Pose, box_corners, boxes_gap, wrap_angle
from drivesim.geometry.bicycle import actions_from_motion, rollout


def random_pose(rng: np.random.Generator) -> Pose:
    return Pose.from_xyz_rpy(*rng.uniform(-20, 20, 3), *rng.uniform(-1.5, 1.5, 3))


class TestPose:
    def test_inverse_undoes(self) -> None:
        rng = np.random.default_rng(0)
        for _ in range(20):
            a_from_b, points = random_pose(rng), rng.normal(size=(4, 5, 3))
            assert np.allclose(a_from_b.inverse().apply(a_from_b.apply(points)), points)
            a_from_b.validate()

    def test_compose_is_one_after_the_other(self) -> None:
        rng = np.random.default_rng(1)
        a_from_b, b_from_c, c_from_d = (random_pose(rng) for _ in range(3))
        points = rng.normal(size=(7, 3))
        assert np.allclose(a_from_b.compose(b_from_c).apply(points), a_from_b.apply(b_from_c.apply(points)))
        left, right = a_from_b.compose(b_from_c).compose(c_from_d), a_from_b.compose(b_from_c.compose(c_from_d))
        assert np.allclose(left.rotation, right.rotation)
        assert np.allclose(left.translation_m, right.translation_m)

    def test_yaw_turns_left_and_pitch_looks_down(self) -> None:
        ahead = np.array([1.0, 0.0, 0.0])
        assert np.allclose(Pose.from_xyz_rpy(0, 0, 0, yaw_rad=math.pi / 2).apply(ahead), [0, 1, 0])
        assert np.allclose(Pose.from_xyz_rpy(0, 0, 0, pitch_rad=math.pi / 2).apply(ahead), [0, 0, -1])
        assert Pose.from_xyz_rpy(0, 0, 0, yaw_rad=2.5).yaw_rad == pytest.approx(2.5)

    def test_wrap_angle(self) -> None:
        assert wrap_angle(math.pi) == pytest.approx(math.pi)
        assert wrap_angle(-math.pi) == pytest.approx(math.pi)
        for angle in np.linspace(-30, 30, 101):
            wrapped = wrap_angle(float(angle))
            assert -math.pi < wrapped <= math.pi + 1e-12
            assert math.cos(wrapped) == pytest.approx(math.cos(angle))

    def test_a_sheared_rotation_is_refused(self) -> None:
        with pytest.raises(ValueError, match="orthonormal"):
            Pose(np.eye(3) + 0.1, np.zeros(3)).validate()


class TestBicycle:
    def test_inverse_of_forward(self) -> None:
        rng = np.random.default_rng(2)
        actions = np.stack([rng.uniform(-1, 2, (6, 16)), rng.uniform(-0.1, 0.1, (6, 16))], axis=-1)
        poses, speeds = rollout(np.full(6, 8.0), actions, 0.25)
        for k in range(6):
            whole = np.concatenate([np.zeros((1, 3)), poses[k]])
            found = actions_from_motion(whole, np.concatenate([[8.0], speeds[k]]), 0.25)
            assert np.allclose(found, actions[k], atol=1e-9)

    def test_a_batch_equals_a_loop(self) -> None:
        rng = np.random.default_rng(3)
        actions = np.stack([rng.uniform(-4, 2, (3, 4, 8)), rng.uniform(-0.2, 0.2, (3, 4, 8))], axis=-1)
        speed = rng.uniform(0, 10, (3, 4))
        poses, speeds = rollout(speed, actions, 0.5)
        for i in range(3):
            for j in range(4):
                one_pose, one_speed = rollout(float(speed[i, j]), actions[i, j], 0.5)
                assert np.allclose(one_pose, poses[i, j])
                assert np.allclose(one_speed, speeds[i, j])

    def test_braking_never_reverses(self) -> None:
        actions = np.tile([-6.0, 0.1], (12, 1))
        poses, speeds = rollout(4.0, actions, 0.25, substeps=50)
        assert speeds.min() == 0.0
        assert poses[-1, 0] < 4.0**2 / 12.0 + 0.05
        assert np.allclose(poses[-1], poses[-2])

    def test_a_full_circle_closes(self) -> None:
        steps, radius = 64, 10.0
        speed = 2 * math.pi * radius / (steps * 0.25)
        poses, _ = rollout(speed, np.tile([0.0, 1 / radius], (steps, 1)), 0.25)
        assert np.allclose(poses[-1, :2], 0.0, atol=0.01)
        assert poses[-1, 2] == pytest.approx(2 * math.pi)

    def test_a_mirrored_curvature_mirrors_the_path(self) -> None:
        rng = np.random.default_rng(4)
        actions = np.stack([rng.uniform(-1, 1, 16), rng.uniform(-0.1, 0.1, 16)], axis=-1)
        left, _ = rollout(7.0, actions, 0.25)
        right, _ = rollout(7.0, actions * [1, -1], 0.25)
        assert np.allclose(left * [1, -1, -1], right)


class TestPolyline:
    def circle(self, radius: float = 20.0, points: int = 200) -> Polyline:
        angle = np.linspace(0, math.pi, points)
        return Polyline.from_points(radius * np.stack([np.sin(angle), 1 - np.cos(angle)], axis=1))

    def test_project_undoes_at(self) -> None:
        line = self.circle()
        for s in np.linspace(0.5, line.length_m - 0.5, 23):
            x, y, heading = line.at(s)
            for offset in (-1.5, 0.0, 2.0):
                found, lateral = line.project(x - offset * math.sin(heading), y + offset * math.cos(heading))
                assert found == pytest.approx(s, abs=0.1)
                assert lateral == pytest.approx(offset, abs=0.02)

    def test_curvature_and_length_of_a_circle(self) -> None:
        line = self.circle()
        assert line.length_m == pytest.approx(20.0 * math.pi, rel=1e-3)
        assert np.allclose(line.curvature(np.linspace(5, line.length_m - 5, 9)), 1 / 20.0, rtol=0.02)

    def test_repeated_points_change_nothing(self) -> None:
        points = np.array([[0.0, 0.0], [0.0, 0.0], [1.0, 0.0], [3.0, 0.0], [3.0, 0.0]])
        line = Polyline.from_points(points)
        assert len(line.points_m) == 3
        assert line.length_m == 3.0

    def test_a_single_point_is_refused(self) -> None:
        with pytest.raises(ValueError, match="two distinct"):
            Polyline.from_points(np.zeros((4, 2)))

    def test_a_crossing_does_not_jump(self) -> None:
        angle = np.linspace(0, 2 * math.pi, 400)
        eight = Polyline.from_points(30 * np.stack([np.sin(angle), np.sin(angle) * np.cos(angle)], axis=1))
        middle = eight.length_m / 2
        x, y, _ = eight.at(middle)
        assert eight.project(x, y, near_s_m=middle, window_m=10)[0] == pytest.approx(middle, abs=0.5)
        assert eight.project(x, y, near_s_m=0.0, window_m=10)[0] == pytest.approx(0.0, abs=0.5)


class TestBoxes:
    def test_the_gap_is_symmetric_and_moves_with_the_world(self) -> None:
        rng = np.random.default_rng(5)
        a, b = rng.uniform(-6, 6, (50, 3)), rng.uniform(-6, 6, (50, 3))
        size_a, size_b = rng.uniform(0.5, 5, (50, 2)), rng.uniform(0.5, 5, (50, 2))
        gap = boxes_gap(a, size_a, b, size_b)
        assert np.allclose(gap, boxes_gap(b, size_b, a, size_a))
        turn = 0.7
        c, s = math.cos(turn), math.sin(turn)

        def moved(pose: np.ndarray) -> np.ndarray:
            return np.stack(
                [c * pose[:, 0] - s * pose[:, 1] + 3, s * pose[:, 0] + c * pose[:, 1] - 8, pose[:, 2] + turn], 1
            )

        assert np.allclose(gap, boxes_gap(moved(a), size_a, moved(b), size_b))

    def test_the_sign_is_exact(self) -> None:
        shapely = pytest.importorskip("shapely")
        rng = np.random.default_rng(6)
        a, b = rng.uniform(-4, 4, (300, 3)), rng.uniform(-4, 4, (300, 3))
        size_a, size_b = rng.uniform(0.5, 5, (300, 2)), rng.uniform(0.5, 5, (300, 2))
        gap = boxes_gap(a, size_a, b, size_b)
        for k in range(300):
            first, second = (shapely.Polygon(box_corners(p, s)) for p, s in ((a[k], size_a[k]), (b[k], size_b[k])))
            assert first.intersects(second) == (gap[k] <= 0)
            if gap[k] > 0:
                assert gap[k] <= first.distance(second) + 1e-9
