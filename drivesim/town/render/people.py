"""Walkers: head, hair, torso, arms and two swinging legs; a few phases of the gait."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from drivesim.town.render.meshes import FIXED, PEDESTRIANS, TINT_A, TINT_B, TINT_C, Mesh

PHASES = 5  # 0 stands, 1..4 walk
BUILDS = 2  # trousers, long coat
HEIGHT_M = 1.80
SHOE, HAIR = (30, 27, 26), ((44, 32, 24), (120, 92, 52))


def walker_mesh(build: int, phase: int) -> Mesh:
    """One figure of HEIGHT_M; TINT_A upper clothes, TINT_B lower clothes, TINT_C skin."""
    mesh = Mesh()
    swing = (0.0, 0.30, 0.10, -0.30, -0.10)[phase]
    for side in (1.0, -1.0):
        reach = swing * side
        _bar(mesh, (0.0, side * 0.10, 0.90), (reach * 0.55, side * 0.10, 0.48), 0.098, 0.080, (255, 255, 255), TINT_B)
        _bar(mesh, (reach * 0.55, side * 0.10, 0.48), (reach, side * 0.10, 0.07), 0.080, 0.065, (255, 255, 255), TINT_B)
        mesh.box((reach - 0.09, side * 0.10 - 0.055, 0.0), (reach + 0.17, side * 0.10 + 0.055, 0.10), SHOE, PEDESTRIANS)
        arm = -reach * 0.8
        _bar(mesh, (0.0, side * 0.265, 1.44), (arm * 0.45, side * 0.29, 1.16), 0.062, 0.055, (255, 255, 255), TINT_A)
        _bar(mesh, (arm * 0.45, side * 0.29, 1.16), (arm, side * 0.28, 0.90), 0.055, 0.045, (255, 255, 255), TINT_A)
        mesh.box(
            (arm - 0.045, side * 0.28 - 0.04, 0.80),
            (arm + 0.05, side * 0.28 + 0.04, 0.91),
            (255, 255, 255),
            PEDESTRIANS,
            TINT_C,
            skip_bottom=False,
        )
    hem = 0.86 if build == 0 else 0.55
    flare = 0.17 if build == 0 else 0.23
    _torso(mesh, hem, flare)
    mesh.box((-0.05, -0.055, 1.46), (0.06, 0.055, 1.56), (255, 255, 255), PEDESTRIANS, TINT_C)
    mesh.blob((0.02, 0.0, 1.655), (0.115, 0.095, 0.135), (255, 255, 255), PEDESTRIANS, TINT_C, rings=4, sides=6)
    mesh.blob((-0.015, 0.0, 1.69), (0.118, 0.104, 0.12), HAIR[build], PEDESTRIANS, FIXED, rings=4, sides=6)
    return mesh


def far_walker_mesh() -> Mesh:
    """Legs, torso, head as three boxes."""
    mesh = Mesh()
    mesh.box((-0.13, -0.18, 0.0), (0.13, 0.18, 0.88), (255, 255, 255), PEDESTRIANS, TINT_B)
    mesh.box((-0.15, -0.29, 0.86), (0.15, 0.29, 1.50), (255, 255, 255), PEDESTRIANS, TINT_A)
    mesh.box((-0.11, -0.11, 1.50), (0.12, 0.11, 1.80), (255, 255, 255), PEDESTRIANS, TINT_C)
    return mesh


def _torso(mesh: Mesh, hem: float, flare: float) -> None:
    rings = [(hem, 0.115 * flare / 0.17, flare), (1.10, 0.115, 0.175), (1.40, 0.13, 0.23), (1.50, 0.08, 0.15)]
    for (z0, x0, y0), (z1, x1, y1) in pairwise(rings):
        bottom = [
            (x0, 0.6 * y0, z0),
            (0.0, y0, z0),
            (-x0, 0.6 * y0, z0),
            (-x0, -0.6 * y0, z0),
            (0.0, -y0, z0),
            (x0, -0.6 * y0, z0),
        ]
        top = [
            (x1, 0.6 * y1, z1),
            (0.0, y1, z1),
            (-x1, 0.6 * y1, z1),
            (-x1, -0.6 * y1, z1),
            (0.0, -y1, z1),
            (x1, -0.6 * y1, z1),
        ]
        mesh.hexahedron(bottom, top, (255, 255, 255), PEDESTRIANS, TINT_A)


def _bar(mesh: Mesh, start: tuple[float, float, float], end: tuple[float, float, float], wide: float, narrow: float,
         rgb: tuple[int, int, int], kind: int) -> None:  # fmt: skip
    turn = np.arange(4) * np.pi / 2 + np.pi / 4
    top = [(start[0] + wide * float(np.cos(t)), start[1] + wide * float(np.sin(t)), start[2]) for t in turn]
    bottom = [(end[0] + narrow * float(np.cos(t)), end[1] + narrow * float(np.sin(t)), end[2]) for t in turn]
    mesh.hexahedron(bottom, top, rgb, PEDESTRIANS, kind)
