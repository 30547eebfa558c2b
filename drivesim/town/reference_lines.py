"""Road reference lines of straight and circular pieces, in OpenDRIVE's axes (y north, heading counter-clockwise)."""

from __future__ import annotations

import math

Pose = tuple[float, float, float]  # x, y, heading
Piece = tuple[float, float]  # length, curvature


def walk(start: Pose, pieces: list[Piece]) -> Pose:
    """Pose after straight and circular pieces."""
    x, y, h = start
    for length, curvature in pieces:
        if curvature == 0.0:
            x, y = x + length * math.cos(h), y + length * math.sin(h)
        else:
            turned = h + length * curvature
            x += (math.sin(turned) - math.sin(h)) / curvature
            y -= (math.cos(turned) - math.cos(h)) / curvature
            h = turned
    return x, y, h


def turned(pose: Pose) -> Pose:
    """The same place, looking back."""
    return pose[0], pose[1], pose[2] + math.pi


def to_right(pose: Pose, offset_m: float) -> Pose:
    """The parallel line `offset_m` to the right."""
    x, y, h = pose
    return x + offset_m * math.sin(h), y - offset_m * math.cos(h), h


def fillet(start: Pose, end: Pose) -> list[Piece]:
    """Straight, arc, straight from one pose to another whose lines meet ahead of the one, behind the other."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    turn = math.remainder(end[2] - start[2], 2 * math.pi)
    if abs(turn) < 1e-6:
        return [(math.hypot(dx, dy), 0.0)]
    cos, sin = math.cos(start[2]), math.sin(start[2])
    ahead, aside = dx * cos + dy * sin, dy * cos - dx * sin
    after = aside / math.sin(turn)
    before = ahead - after * math.cos(turn)
    tangent = min(before, after)
    radius = tangent / math.tan(abs(turn) / 2)
    pieces = [(before - tangent, 0.0), (radius * abs(turn), math.copysign(1.0 / radius, turn)), (after - tangent, 0.0)]
    return [piece for piece in pieces if piece[0] > 1e-6]
