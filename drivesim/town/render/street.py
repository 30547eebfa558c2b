"""Shapes of what stands in a street: houses, trees, lamps, traffic lights, signs, benches, bins."""

from __future__ import annotations

import numpy as np

from drivesim.town.render.meshes import (
    BUILDINGS,
    FACADE,
    FOLIAGE,
    LAMP_STREET,
    POLES,
    STATIC,
    TINT_A,
    TINT_B,
    TRAFFIC_LIGHT,
    TRAFFIC_SIGNS,
    VEGETATION,
    Mesh,
    Point,
)

TREES = 7  # four broad, two conifers, a bush
ARMS = 10  # mast arms of 0..9 m
SIGNS = 4  # stop, yield, speed, arrow board
METAL, DARK, HOUSING = (92, 95, 98), (40, 42, 44), (30, 31, 32)
HEAD_HALF_M, LAMP_RADIUS_M = (0.20, 0.24, 0.62), 0.17
LAMP_HEIGHTS_M = (0.40, 0.0, -0.40)  # red, yellow, green about the head's middle


def building_mesh(half_length: float, half_width: float, height: float, roof: int) -> Mesh:
    """Walls with facades; roof 0 flat with a parapet, 1 pitched, 2 stepped tower."""
    mesh = Mesh()
    if roof == 2 and height > 18.0:
        _walls(mesh, half_length, half_width, 0.0, height * 0.6)
        _walls(mesh, half_length * 0.72, half_width * 0.72, height * 0.6, height)
    elif roof == 1:
        eave = max(height - 2.6, 2.8)
        _walls(mesh, half_length, half_width, 0.0, eave, lid=False)
        over_l, over_w = half_length + 0.4, half_width + 0.4
        ridge = [(-over_l, 0.0, height), (over_l, 0.0, height)]
        for side in (-1.0, 1.0):
            mesh.polygon(
                [(-over_l, side * over_w, eave - 0.15), (over_l, side * over_w, eave - 0.15), ridge[1], ridge[0]],
                (255, 255, 255),
                BUILDINGS,
                TINT_B,
                away_from=(0, 0, 0),
            )
            mesh.polygon(
                [
                    (side * half_length, -half_width, eave),
                    (side * half_length, half_width, eave),
                    (side * half_length, 0.0, height),
                ],
                (225, 225, 225),
                BUILDINGS,
                TINT_A,
                away_from=(0, 0, eave),
            )
        mesh.box(
            (half_length * 0.3, half_width * 0.2, eave),
            (half_length * 0.3 + 0.7, half_width * 0.2 + 0.7, height + 0.6),
            (150, 110, 96),
            BUILDINGS,
        )
    else:
        _walls(mesh, half_length, half_width, 0.0, height)
        mesh.box(
            (-half_length - 0.15, -half_width - 0.15, height - 0.5),
            (half_length + 0.15, half_width + 0.15, height + 0.25),
            (215, 212, 206),
            BUILDINGS,
            TINT_A,
            skip_bottom=False,
        )
        if height > 9:
            mesh.box(
                (-half_length * 0.4, -half_width * 0.3, height),
                (half_length * 0.1, half_width * 0.4, height + 2.4),
                (170, 170, 170),
                BUILDINGS,
            )
    return mesh


def _walls(mesh: Mesh, half_length: float, half_width: float, low: float, high: float, *, lid: bool = True) -> None:
    corners = [
        (-half_length, -half_width),
        (half_length, -half_width),
        (half_length, half_width),
        (-half_length, half_width),
    ]
    start = 0.0
    for i in range(4):
        (x0, y0), (x1, y1) = corners[i], corners[(i + 1) % 4]
        mesh.polygon([(x0, y0, low), (x1, y1, low), (x1, y1, high), (x0, y0, high)], (255, 255, 255), BUILDINGS, FACADE,
                     away_from=(0.0, 0.0, (low + high) / 2), param=(start + 64.0, 0.0))  # fmt: skip
        start += 12.8
    if lid:
        mesh.polygon([(x, y, high) for x, y in corners], (150, 148, 146), BUILDINGS, away_from=(0.0, 0.0, low))


def tree_mesh(kind: int) -> Mesh:
    """About 7 m tall at scale 1; the crown's tint is TINT_A."""
    mesh, rng = Mesh(), np.random.default_rng(40 + kind)
    if kind == 6:
        mesh.blob((0.0, 0.0, 0.45), (0.75, 0.75, 0.55), (255, 255, 255), VEGETATION, FOLIAGE)
        return mesh
    if kind >= 4:
        mesh.pole(0, 0, 0, 1.6, 0.16, (84, 62, 46), VEGETATION, sides=5)
        for low, high, radius in ((1.1, 4.2, 1.9), (2.9, 6.0, 1.45), (4.7, 7.8, 0.95)):
            shade = int(200 + 9 * low)
            mesh.pole(
                0, 0, low, high, radius, (shade, shade, shade), VEGETATION, sides=7, top_radius=0.04, kind=FOLIAGE
            )
        return mesh
    mesh.pole(0, 0, 0, 3.2, 0.19, (92, 70, 52), VEGETATION, sides=5, top_radius=0.13)
    mesh.blob((0.0, 0.0, 4.7), (1.75, 1.75, 1.75), (255, 255, 255), VEGETATION, FOLIAGE, rings=4, sides=7)
    for k in range(3):
        turn = 2 * np.pi * (k / 3 + rng.random() * 0.2)
        centre = (1.05 * np.cos(turn), 1.05 * np.sin(turn), float(rng.uniform(3.9, 5.4)))
        size = float(rng.uniform(1.0, 1.4))
        shade = int(rng.integers(205, 250))
        mesh.blob(
            (float(centre[0]), float(centre[1]), centre[2]),
            (size, size, size * 0.9),
            (shade, shade, shade),
            VEGETATION,
            FOLIAGE,
            rings=4,
            sides=6,
        )
    return mesh


def far_tree_mesh(kind: int) -> Mesh:
    """A dozen polygons."""
    mesh = Mesh()
    if kind == 6:
        mesh.blob((0.0, 0.0, 0.45), (0.75, 0.75, 0.55), (230, 230, 230), VEGETATION, FOLIAGE, rings=2, sides=4)
    elif kind >= 4:
        mesh.pole(0, 0, 0, 1.6, 0.18, (84, 62, 46), VEGETATION, sides=3)
        mesh.pole(0, 0, 1.1, 7.8, 1.7, (225, 225, 225), VEGETATION, sides=6, top_radius=0.04, kind=FOLIAGE)
    else:
        mesh.pole(0, 0, 0, 3.2, 0.2, (92, 70, 52), VEGETATION, sides=3)
        mesh.blob((0.0, 0.0, 4.6), (2.0, 2.0, 1.9), (236, 236, 236), VEGETATION, FOLIAGE, rings=3, sides=5)
    return mesh


def lamp_mesh(*, far: bool = False) -> Mesh:
    """A street lamp 8 m tall whose arm points along +x."""
    mesh = Mesh()
    mesh.pole(0, 0, 0, 8.0, 0.18 if far else 0.10, METAL, POLES, sides=4, top_radius=0.16 if far else 0.06)
    mesh.box((0.0, -0.05, 7.92), (1.7, 0.05, 8.02), METAL, POLES, skip_bottom=False)
    mesh.box((1.1, -0.14, 7.84), (1.9, 0.14, 7.98), METAL, POLES)
    mesh.polygon(
        [(1.12, -0.13, 7.82), (1.88, -0.13, 7.82), (1.88, 0.13, 7.82), (1.12, 0.13, 7.82)],
        (225, 225, 215),
        POLES,
        LAMP_STREET,
        away_from=(1.5, 0.0, 9.0),
    )
    return mesh


def mast_mesh(arm_m: int, height: float) -> Mesh:
    """The pole of a traffic light; its arm goes to +y (the driver's left)."""
    mesh = Mesh()
    mesh.pole(0, 0, 0, height + (0.6 if arm_m else 0.4), 0.11, METAL, POLES, sides=5, top_radius=0.09)
    if arm_m:
        mesh.box((-0.07, 0.0, height + 0.30), (0.07, arm_m + 0.3, height + 0.44), METAL, POLES, skip_bottom=False)
    return mesh


def head_mesh() -> Mesh:
    """A signal head looking along +x with three dark lenses; the lit one is drawn per tick."""
    mesh = Mesh()
    d, w, h = HEAD_HALF_M
    mesh.box(
        (-d - 0.02, -w - 0.10, -h - 0.10), (-d, w + 0.10, h + 0.10), (14, 14, 15), TRAFFIC_LIGHT, skip_bottom=False
    )
    mesh.box((-d, -w, -h), (d, w, h), HOUSING, TRAFFIC_LIGHT, skip_bottom=False)
    for z, rgb in zip(LAMP_HEIGHTS_M, ((70, 16, 14), (66, 50, 12), (12, 54, 24)), strict=True):
        turn = (np.arange(8) + 0.5) * 2 * np.pi / 8
        ring: list[Point] = [
            (d + 0.012, LAMP_RADIUS_M * float(np.cos(t)), z + LAMP_RADIUS_M * float(np.sin(t))) for t in turn
        ]
        mesh.polygon(ring, rgb, TRAFFIC_LIGHT, away_from=(0.0, 0.0, z))
        hood: list[Point] = [
            (d, -0.2, z + 0.17),
            (d, 0.2, z + 0.17),
            (d + 0.2, 0.2, z + 0.19),
            (d + 0.2, -0.2, z + 0.19),
        ]
        mesh.polygon(hood, (22, 22, 23), TRAFFIC_LIGHT, away_from=(d, 0.0, z))
    return mesh


def sign_mesh(kind: int) -> Mesh:
    """A plate at 2.2 m looking along +x."""
    mesh = Mesh()
    mesh.pole(0, 0, 0, 2.5, 0.045, METAL, POLES)
    sides, radius, start = ((8, 0.42, np.pi / 8), (3, 0.48, -np.pi / 2), (12, 0.38, 0.0), (4, 0.45, np.pi / 4))[kind]
    outer, inner = (
        ((178, 22, 26), (178, 22, 26)),
        ((190, 26, 28), (240, 240, 236)),
        ((196, 28, 30), (242, 242, 240)),
        ((30, 70, 160), (30, 70, 160)),
    )[kind]

    def ring(size: float, x: float) -> list[Point]:
        turn = start + np.arange(sides) * 2 * np.pi / sides
        return [(x, size * float(np.cos(t)), 2.2 + size * float(np.sin(t))) for t in turn]

    mesh.polygon(ring(radius, 0.07), outer, TRAFFIC_SIGNS, away_from=(0.0, 0.0, 2.2))
    mesh.polygon(ring(radius, 0.05), (120, 122, 124), TRAFFIC_SIGNS, away_from=(1.0, 0.0, 2.2))
    mesh.polygon(ring(radius * 0.72, 0.078), inner, TRAFFIC_SIGNS, away_from=(0.0, 0.0, 2.2))
    bars = {
        0: [(-0.26, 0.26, -0.07, 0.07)],
        2: [(-0.18, -0.04, -0.14, 0.14), (0.05, 0.18, -0.14, 0.14)],
        3: [(-0.05, 0.05, -0.2, 0.2)],
    }
    for y0, y1, z0, z1 in bars.get(kind, []):
        rgb = (245, 245, 245) if kind != 2 else (20, 20, 22)
        mesh.polygon(
            [(0.086, y0, 2.2 + z0), (0.086, y1, 2.2 + z0), (0.086, y1, 2.2 + z1), (0.086, y0, 2.2 + z1)],
            rgb,
            TRAFFIC_SIGNS,
            away_from=(0, 0, 2.2),
        )
    return mesh


def prop_mesh(kind: int) -> Mesh:
    """0 bench, 1 bin, 2 hydrant, 3 cabinet, 4 bus shelter."""
    mesh = Mesh()
    if kind == 0:
        mesh.box((-0.25, -0.8, 0.38), (0.22, 0.8, 0.45), (122, 86, 56), STATIC, skip_bottom=False)
        mesh.box((-0.28, -0.8, 0.5), (-0.22, 0.8, 0.85), (122, 86, 56), STATIC, skip_bottom=False)
        for y in (-0.6, 0.6):
            mesh.box((-0.2, y - 0.04, 0), (0.18, y + 0.04, 0.38), DARK, STATIC)
    elif kind == 1:
        mesh.pole(0, 0, 0, 0.95, 0.27, (46, 74, 58), STATIC, sides=6)
    elif kind == 2:
        mesh.pole(0, 0, 0, 0.62, 0.13, (186, 40, 34), STATIC, sides=6)
        mesh.blob((0, 0, 0.64), (0.14, 0.14, 0.12), (186, 40, 34), STATIC, rings=3, sides=6)
    elif kind == 3:
        mesh.box((-0.25, -0.5, 0), (0.25, 0.5, 1.25), (126, 132, 122), STATIC)
    else:
        mesh.box((-0.7, -1.9, 2.35), (0.7, 1.9, 2.47), (70, 76, 84), STATIC, skip_bottom=False)
        mesh.box((-0.68, -1.85, 0.3), (-0.62, 1.85, 2.3), (140, 160, 170), STATIC, skip_bottom=False)
        for y in (-1.85, 1.8):
            mesh.box((0.55, y, 0), (0.62, y + 0.07, 2.35), METAL, STATIC)
    return mesh
