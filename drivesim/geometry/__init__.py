"""Poses, curves, boxes and bicycle kinematics (floor 1)."""

from drivesim.geometry.box import box_corners, boxes_gap
from drivesim.geometry.curve import Polyline
from drivesim.geometry.pose import Pose, rotation_from_rpy, wrap_angle

__all__ = ["Polyline", "Pose", "box_corners", "boxes_gap", "rotation_from_rpy", "wrap_angle"]
