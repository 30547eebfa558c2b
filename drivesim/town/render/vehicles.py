"""Shapes of the vehicles: a body with a greenhouse, wheels, lamps and plates, sized to the blueprint's box."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from drivesim.town.catalogue import (
    SHAPE_BOX,
    SHAPE_BUS,
    SHAPE_HATCH,
    SHAPE_SUV,
    SHAPE_TRUCK,
    SHAPE_TWO_WHEELER,
    SHAPE_VAN,
    ActorModel,
)
from drivesim.town.render.meshes import (
    BICYCLE,
    BUS,
    CAR,
    FIXED,
    GLASS,
    LAMP_BEACON,
    LAMP_HEAD,
    LAMP_LEFT,
    LAMP_REVERSE,
    LAMP_RIGHT,
    LAMP_TAIL,
    MOTORCYCLE,
    RIDER,
    STATIC,
    TINT_A,
    TINT_B,
    TINT_C,
    TRUCK,
    Mesh,
)

TYRE, HUB, DARK, PLATE, CHROME = (22, 22, 24), (120, 122, 126), (28, 28, 31), (225, 225, 215), (150, 152, 156)
WINDOW, WHITE = (38, 48, 58), (255, 255, 255)

# Greenhouse corners along x as fractions of the half length (rear foot, rear roof, front roof, front foot),
# then fractions of the height: sill, beltline, bonnet.
CABINS = {
    "sedan": ((-0.72, -0.42, 0.10, 0.46), 0.17, 0.62, 0.55),
    "hatch": ((-0.96, -0.80, 0.08, 0.50), 0.17, 0.60, 0.56),
    "suv": ((-0.97, -0.88, 0.10, 0.46), 0.20, 0.60, 0.57),
}


def vehicle_mesh(model: ActorModel) -> Mesh:
    """The mesh of one blueprint."""
    if model.shape == SHAPE_TWO_WHEELER:
        return _two_wheeler(model)
    if model.shape == SHAPE_BOX:
        mesh = Mesh()
        hl, hw = model.length_m / 2, model.width_m / 2
        mesh.box((-hl, -hw, 0.0), (hl, hw, model.height_m), WHITE, STATIC, TINT_A)
        return mesh
    if model.shape in (SHAPE_VAN, SHAPE_TRUCK, SHAPE_BUS):
        return _box_vehicle(model)
    style = "hatch" if model.shape == SHAPE_HATCH else "suv" if model.shape == SHAPE_SUV else "sedan"
    return _car(model, style)


def far_mesh(model: ActorModel) -> Mesh:
    """A dozen polygons for a vehicle a few pixels wide: body, glass, lamps."""
    mesh, klass = Mesh(), label(model)
    hl, hw, h = model.length_m / 2, model.width_m / 2, model.height_m
    if model.shape == SHAPE_TWO_WHEELER:
        mesh.box((-hl, -hw * 0.4, 0.0), (hl, hw * 0.4, h * 0.55), DARK, klass)
        mesh.box((-0.3, -hw * 0.8, h * 0.45), (0.3, hw * 0.8, h), WHITE, RIDER, TINT_B)
        return mesh
    tall = model.shape in (SHAPE_VAN, SHAPE_TRUCK, SHAPE_BUS)
    belt = h if tall else h * 0.6
    mesh.box((-hl, -hw, h * 0.12), (hl, hw, belt), WHITE, klass, TINT_A)
    if not tall:
        bottom = [
            (-0.8 * hl, -hw * 0.9, belt),
            (0.45 * hl, -hw * 0.9, belt),
            (0.45 * hl, hw * 0.9, belt),
            (-0.8 * hl, hw * 0.9, belt),
        ]
        top = [(-0.5 * hl, -hw * 0.7, h), (0.1 * hl, -hw * 0.7, h), (0.1 * hl, hw * 0.7, h), (-0.5 * hl, hw * 0.7, h)]
        mesh.hexahedron(bottom, top, WINDOW, klass, GLASS)
    else:
        _panel(mesh, hl + 0.01, (-hw * 0.9, h * 0.5), (hw * 0.9, h * 0.85), WINDOW, klass, GLASS)
    mesh.box((-hl * 0.8, -hw * 0.98, 0.0), (hl * 0.8, hw * 0.98, h * 0.14), TYRE, klass)
    _lamps(mesh, hl + 0.02, hw, h * 0.42 if not tall else 0.9, klass, size=0.24)
    return mesh


def label(model: ActorModel) -> int:
    """CARLA's semantic label of a blueprint."""
    table = {"truck": TRUCK, "bus": BUS, "motorcycle": MOTORCYCLE, "bicycle": BICYCLE, "prop": STATIC}
    return table.get(model.base_type, CAR)


def _panel(mesh: Mesh, x: float, low: tuple[float, float], high: tuple[float, float], rgb: tuple[int, int, int],
           klass: int, kind: int = FIXED) -> None:  # fmt: skip
    """A rectangle in y-z at x, looking away from the origin."""
    (y0, z0), (y1, z1) = low, high
    mesh.polygon(
        [(x, y0, z0), (x, y1, z0), (x, y1, z1), (x, y0, z1)], rgb, klass, kind, away_from=(0.0, 0.0, (z0 + z1) / 2)
    )


def _side_panel(mesh: Mesh, points: list[tuple[float, float, float]], rgb: tuple[int, int, int], klass: int,
                kind: int = FIXED) -> None:  # fmt: skip
    """The same polygon on the right and, mirrored, on the left."""
    for side in (1.0, -1.0):
        ring = [(x, side * y, z) for x, y, z in points]
        middle_x = sum(x for x, _, _ in ring) / len(ring)
        mesh.polygon(ring, rgb, klass, kind, away_from=(middle_x, 0.0, 0.3))


def _wheels(mesh: Mesh, axles: list[float], radius: float, half_track: float, width: float, klass: int) -> None:
    turn = (np.arange(10) + 0.5) * 2 * np.pi / 10
    rim = [(radius * float(np.cos(t)), radius * float(np.sin(t))) for t in turn]
    for axle in axles:
        for side in (1.0, -1.0):
            outer = [(axle + x, side * half_track, radius + z) for x, z in rim]
            inner = [(axle + x, side * (half_track - width), radius + z) for x, z in rim]
            mesh.hexahedron(inner, outer, TYRE, klass)
            hub = [(axle + 0.55 * x, side * (half_track + 0.012), radius + 0.55 * z) for x, z in rim[::2]]
            mesh.polygon(hub, HUB, klass, away_from=(axle, 0.0, radius))


def _lamps(mesh: Mesh, x: float, hw: float, z: float, klass: int, size: float) -> None:
    """Head, tail, brake, blink and reverse lamps on the two ends."""
    wide = size * 1.7
    for side in (1.0, -1.0):
        a, b = sorted((side * (hw * 0.95), side * (hw * 0.95 - wide)))
        _panel(mesh, x, (a, z - size / 2), (b, z + size / 2), (235, 235, 225), klass, LAMP_HEAD)
        _panel(mesh, -x, (a, z - size / 2 + 0.06), (b, z + size / 2 + 0.1), (150, 18, 18), klass, LAMP_TAIL)
        blink = LAMP_RIGHT if side > 0 else LAMP_LEFT
        a, b = sorted((side * hw * 0.97, side * (hw * 0.97 - size)))
        for end in (x + 0.004, -x - 0.004):
            _panel(mesh, end, (a, z - size * 0.95), (b, z - size * 0.5), (190, 110, 30), klass, blink)
        a, b = sorted((side * hw * 0.5, side * (hw * 0.5 - size * 0.6)))
        _panel(mesh, -x, (a, z - size * 0.4), (b, z), (190, 190, 190), klass, LAMP_REVERSE)


def _car(model: ActorModel, style: str) -> Mesh:
    mesh, klass = Mesh(), label(model)
    hl, hw, h = model.length_m / 2, model.width_m / 2 * 0.93, model.height_m
    (rear_foot, rear_roof, front_roof, front_foot), sill_f, belt_f, bonnet_f = CABINS[style]
    sill, belt, bonnet = h * sill_f, h * belt_f, h * bonnet_f
    tail = belt - 0.02 * h
    profile = [
        (-hl * 0.97, sill),
        (-hl, sill + 0.35 * (tail - sill)),
        (-hl * 0.985, tail),
        (rear_foot * hl * 0.98, belt),
        (front_foot * hl, belt),
        (hl * 0.90, bonnet),
        (hl, bonnet - 0.12 * h),
        (hl * 0.98, sill),
    ]
    widths = [hw * 0.92, hw, hw * 0.95, hw * 0.95, hw * 0.95, hw * 0.90, hw * 0.94, hw * 0.90]
    mesh.prism_y(profile, widths, WHITE, klass, TINT_A)
    mesh.box((-hl * 0.93, -hw * 0.93, h * 0.10), (hl * 0.93, hw * 0.93, sill + 0.02), DARK, klass)
    _greenhouse(mesh, [f * hl for f in (rear_foot, rear_roof, front_roof, front_foot)], belt, h, hw, klass)
    half = model.wheelbase_m / 2 or hl * 0.6
    _wheels(mesh, [-half, half], min(0.36, h * 0.235), hw * 1.01, 0.24, klass)
    _lamps(mesh, hl + 0.012, hw, bonnet - 0.10 * h if style != "sedan" else h * 0.43, klass, size=0.16)
    _panel(mesh, hl + 0.012, (-hw * 0.5, h * 0.22), (hw * 0.5, h * 0.33), DARK, klass)
    for end in (hl + 0.016, -hl - 0.016):
        _panel(mesh, end, (-0.26, h * 0.25), (0.26, h * 0.25 + 0.12), PLATE, klass)
    for side in (1.0, -1.0):
        y0, y1 = sorted((side * hw * 0.92, side * hw * 1.07))
        mesh.box((front_foot * hl - 0.35, y0, belt), (front_foot * hl - 0.18, y1, belt + 0.13), WHITE, klass, TINT_A,
                 skip_bottom=False)  # fmt: skip
    if "police" in model.blueprint or "ambulance" in model.blueprint or "firetruck" in model.blueprint:
        mesh.box((-0.25, -hw * 0.6, h - 0.01), (0.05, hw * 0.6, h + 0.12), (60, 90, 235), klass, LAMP_BEACON)
    if "taxi" in model.blueprint:
        mesh.box((-0.2, -0.3, h - 0.01), (0.05, 0.3, h + 0.15), (240, 200, 60), klass)
    return mesh


def _greenhouse(mesh: Mesh, x: list[float], belt: float, h: float, hw: float, klass: int) -> None:
    """Glass all around under a painted roof, with painted pillars just proud of the glass."""
    low, high = hw * 0.91, hw * 0.72
    eave = h - 0.07
    bottom = [(x[0], -low, belt), (x[3], -low, belt), (x[3], low, belt), (x[0], low, belt)]
    top = [(x[1], -high, eave), (x[2], -high, eave), (x[2], high, eave), (x[1], high, eave)]
    mesh.hexahedron(bottom, top, WINDOW, klass, GLASS)
    roof = [
        (x[1] + 0.10, -high * 0.88, h),
        (x[2] - 0.12, -high * 0.88, h),
        (x[2] - 0.12, high * 0.88, h),
        (x[1] + 0.10, high * 0.88, h),
    ]
    ring = [(px, py * 1.02, pz) for px, py, pz in top]
    mesh.hexahedron(ring, roof, WHITE, klass, TINT_A)

    def on_side(t: float, x_low: float, x_high: float) -> tuple[float, float, float]:
        return (x_low + t * (x_high - x_low), low + t * (high - low) + 0.012, belt + t * (eave - belt))

    middle_low, middle_high = 0.45 * x[0] + 0.55 * x[3], 0.45 * x[1] + 0.55 * x[2]
    for x_low, x_high, wide in ((x[3], x[2], -0.09), (middle_low, middle_high, 0.10), (x[0], x[1], 0.14)):
        _side_panel(mesh, [on_side(0, x_low, x_high), on_side(1, x_low, x_high),
                           on_side(1, x_low + wide, x_high + wide), on_side(0, x_low + wide, x_high + wide)],
                    WHITE, klass, TINT_A)  # fmt: skip


def _box_vehicle(model: ActorModel) -> Mesh:
    """Vans, trucks and buses."""
    mesh, klass = Mesh(), label(model)
    hl, hw, h = model.length_m / 2, model.width_m / 2 * 0.95, model.height_m
    bus, truck = model.shape == SHAPE_BUS, model.shape == SHAPE_TRUCK
    sill = 0.32 if not truck else 0.5
    belt = h * (0.42 if bus else 0.5)
    if truck:
        cab = hl - min(2.3, 0.7 * hl)
        mesh.prism_y(
            [(cab, sill), (cab, h * 0.82), (hl - 0.25, h * 0.82), (hl, belt), (hl, sill)],
            [hw * 0.96] * 5,
            WHITE,
            klass,
            TINT_A,
        )
        mesh.box((-hl, -hw, sill + 0.35), (cab - 0.15, hw, h), (205, 206, 204), klass, TINT_B, skip_bottom=False)
        mesh.box((-hl, -hw * 0.5, sill - 0.1), (cab, hw * 0.5, sill + 0.36), DARK, klass)
        glass_x = hl - 0.12
    elif bus:
        mesh.prism_y(
            [(-hl, sill), (-hl, h * 0.97), (-hl + 0.2, h), (hl - 0.2, h), (hl, h * 0.95), (hl, sill)],
            [hw] * 6,
            WHITE,
            klass,
            TINT_A,
        )
        glass_x = hl
    else:
        nose = hl * 0.62
        mesh.prism_y(
            [
                (-hl, sill),
                (-hl, h * 0.97),
                (-hl + 0.1, h),
                (nose - 0.7, h),
                (nose - 0.1, h * 0.93),
                (hl, belt),
                (hl, sill),
            ],
            [hw] * 7,
            WHITE,
            klass,
            TINT_A,
        )
        glass_x = nose
    if bus:
        _panel(mesh, glass_x + 0.015, (-hw * 0.93, belt), (hw * 0.93, h * 0.86), WINDOW, klass, GLASS)
        bays = max(3, int(2 * hl / 1.6))
        edges = np.linspace(-hl + 0.4, hl - 0.3, bays + 1)
        for x0, x1 in pairwise(edges):
            _side_panel(
                mesh,
                [
                    (x0 + 0.08, hw + 0.015, belt),
                    (x1 - 0.08, hw + 0.015, belt),
                    (x1 - 0.08, hw + 0.015, h * 0.86),
                    (x0 + 0.08, hw + 0.015, h * 0.86),
                ],
                WINDOW,
                klass,
                GLASS,
            )
    else:
        top_z = h * 0.80 if truck else h * 0.91
        top_x = (hl - 0.24) if truck else (hl * 0.62 - 0.04)
        mesh.polygon(
            [
                (hl + 0.004, -hw * 0.88, belt + 0.03),
                (hl + 0.004, hw * 0.88, belt + 0.03),
                (top_x + 0.03, hw * 0.84, top_z),
                (top_x + 0.03, -hw * 0.84, top_z),
            ],
            WINDOW,
            klass,
            GLASS,
            away_from=(0.0, 0.0, 0.0),
        )
        x1 = hl - 0.35 if truck else hl * 0.60
        x0 = x1 - 1.15
        top_z = h * 0.76 if truck else h * 0.88
        _side_panel(
            mesh,
            [
                (x0, hw + 0.015, belt),
                (x1 + 0.1, hw + 0.015, belt),
                (x1 - 0.15, hw + 0.015, top_z),
                (x0, hw + 0.015, top_z),
            ],
            WINDOW,
            klass,
            GLASS,
        )
        if not truck:
            _panel(mesh, -hl - 0.012, (-hw * 0.8, belt), (hw * 0.8, h * 0.87), WINDOW, klass, GLASS)
    mesh.box((-hl * 0.97, -hw * 0.95, 0.2), (hl * 0.97, hw * 0.95, sill + 0.02), DARK, klass)
    half = model.wheelbase_m / 2 or hl * 0.6
    axles = [-half, half] if model.wheels <= 4 or not truck else [-half, -half + 1.1, half]
    _wheels(mesh, axles, 0.36 if model.shape == SHAPE_VAN else 0.5, hw * 1.015, 0.3, klass)
    _lamps(mesh, hl + 0.015, hw, sill + 0.38, klass, size=0.22)
    for end in (hl + 0.02, -hl - 0.02):
        _panel(mesh, end, (-0.26, sill + 0.02), (0.26, sill + 0.15), PLATE, klass)
    if "ambulance" in model.blueprint or "firetruck" in model.blueprint:
        mesh.box((hl * 0.3, -hw * 0.6, h * 0.98), (hl * 0.42, hw * 0.6, h + 0.14), (60, 90, 235), klass, LAMP_BEACON)
        _side_panel(
            mesh,
            [
                (-hl * 0.9, hw + 0.012, belt * 0.75),
                (hl * 0.6, hw + 0.012, belt * 0.75),
                (hl * 0.6, hw + 0.012, belt * 0.95),
                (-hl * 0.9, hw + 0.012, belt * 0.95),
            ],
            (215, 40, 35),
            klass,
        )
    return mesh


def _two_wheeler(model: ActorModel) -> Mesh:
    """A bicycle or a motorcycle with its rider (head, torso, arms, legs)."""
    mesh, klass = Mesh(), label(model)
    hl, h = model.length_m / 2, max(model.height_m, 1.5)
    motor = klass == MOTORCYCLE
    radius, thick = (0.31, 0.07) if motor else (0.34, 0.03)
    turn = (np.arange(10) + 0.5) * 2 * np.pi / 10
    for axle in (-hl + radius, hl - radius):
        ring = [(axle + radius * float(np.cos(t)), radius + radius * float(np.sin(t))) for t in turn]
        mesh.prism_y(ring, [thick] * 10, TYRE, klass)
        hub = [(axle + 0.6 * (x - axle), radius + 0.6 * (z - radius)) for x, z in ring]
        mesh.prism_y(hub, [thick + 0.01] * 10, HUB, klass)
    seat = 0.80 if motor else 0.92
    if motor:
        mesh.prism_y(
            [
                (-hl * 0.75, 0.62),
                (-hl * 0.8, seat),
                (0.0, seat - 0.06),
                (hl * 0.45, seat + 0.12),
                (hl * 0.55, 0.6),
                (0.2, 0.28),
                (-0.3, 0.28),
            ],
            [0.13, 0.13, 0.15, 0.17, 0.14, 0.15, 0.15],
            WHITE,
            klass,
            TINT_A,
        )
    else:
        mesh.prism_y(
            [(-hl + radius, radius), (-0.15, seat - 0.05), (hl * 0.45, 0.85), (0.0, 0.32)],
            [0.03] * 4,
            WHITE,
            klass,
            TINT_A,
        )
    mesh.box((hl * 0.48, -0.32, seat + 0.12), (hl * 0.56, 0.32, seat + 0.19), DARK, klass)
    _panel(mesh, hl * 0.6, (-0.10, seat), (0.10, seat + 0.16), (235, 235, 220), klass, LAMP_HEAD)
    _panel(mesh, -hl * 0.83, (-0.10, seat - 0.14), (0.10, seat), (170, 20, 20), klass, LAMP_TAIL)
    _rider(mesh, seat, h)
    return mesh


def _rider(mesh: Mesh, seat: float, h: float) -> None:
    shoulder, head = h - 0.38, h - 0.14
    lower = [(-0.32, -0.17, seat), (-0.02, -0.17, seat), (-0.02, 0.17, seat), (-0.32, 0.17, seat)]
    upper = [
        (-0.12, -0.22, shoulder + 0.1),
        (0.14, -0.22, shoulder + 0.1),
        (0.14, 0.22, shoulder + 0.1),
        (-0.12, 0.22, shoulder + 0.1),
    ]
    mesh.hexahedron(lower, upper, WHITE, RIDER, TINT_B)
    mesh.blob((0.06, 0.0, head), (0.15, 0.13, 0.16), WHITE, RIDER, TINT_C, rings=4, sides=6)
    for side in (1.0, -1.0):
        y = side * 0.17
        _limb(mesh, (-0.1, y, seat), (0.28, y * 1.2, seat - 0.12), 0.085, (52, 56, 70))
        _limb(mesh, (0.28, y * 1.2, seat - 0.12), (0.05, y * 1.1, 0.34), 0.07, (52, 56, 70))
        _limb(mesh, (0.04, side * 0.23, shoulder), (0.46, side * 0.26, seat + 0.2), 0.055, WHITE, TINT_B)


def _limb(mesh: Mesh, start: tuple[float, float, float], end: tuple[float, float, float], radius: float,
          rgb: tuple[int, int, int], kind: int = FIXED) -> None:  # fmt: skip
    """A square bar between two points."""
    axis = np.subtract(end, start)
    axis = axis / max(float(np.linalg.norm(axis)), 1e-6)
    side = np.cross(axis, (0.0, 1.0, 0.0))
    side = side / max(float(np.linalg.norm(side)), 1e-6) * radius
    other = np.cross(axis, side)
    corners = [side + other, side - other, -side - other, -side + other]
    a = [tuple((np.asarray(start) + c).tolist()) for c in corners]
    b = [tuple((np.asarray(end) + c).tolist()) for c in corners]
    mesh.hexahedron(a, b, rgb, RIDER, kind, skip_bottom=False)
