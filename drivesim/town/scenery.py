"""What stands beside the roads: houses, trees, lamps, traffic lights, signs. Placed by seed, never on a lane.

Frame: CARLA's world frame. Everything here keeps at least CLEAR_M from every driving lane.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from drivesim.town.rectangles import Rectangles
from drivesim.town.roads import LANE_DRIVING, LANE_SIDEWALK, RoadNetwork

Floats = NDArray[np.float64]
CLEAR_M = 0.6
CITY, SUBURB, COUNTRY = range(3)
STYLES = {
    "Town01": SUBURB, "Town02": SUBURB, "Town03": CITY, "Town04": COUNTRY, "Town05": CITY, "Town06": COUNTRY,
    "Town07": COUNTRY, "Town10HD": CITY, "Town11": COUNTRY, "Town12": SUBURB, "Town13": SUBURB, "Town15": CITY,
    "Drivetown": SUBURB,
}  # fmt: skip


@dataclass(frozen=True)
class Scenery:
    """Rows of things; yaw in radians."""

    buildings: Floats  # (n, 9) x, y, z, yaw, half length, half width, height, roof kind, facade tile
    trees: Floats  # (n, 6) x, y, z, yaw, scale, kind
    lamps: Floats  # (n, 4) foot x, y, z, yaw of the arm
    masts: Floats  # (n, 6) foot x, y, z, yaw the lamps face, arm length, height
    heads: Floats  # (n, 5) centre x, y, z, yaw they face, light
    signs: Floats  # (n, 5) x, y, z, yaw, kind
    props: Floats  # (n, 5) x, y, z, yaw, kind

    @property
    def solids(self) -> Floats:
        """Boxes that stop a car, (n, 6): x, y, yaw, half length, half width, height."""

        def posts(rows: Floats, half: float | Floats, height: float | Floats) -> Floats:
            n = len(rows)
            side = np.broadcast_to(half, (n,))
            return np.column_stack([rows[:, 0], rows[:, 1], rows[:, 3], side, side, np.broadcast_to(height, (n,))])

        trunks = self.trees[self.trees[:, 5] < 6]
        b = self.buildings
        return np.concatenate([
            np.column_stack([b[:, 0], b[:, 1], b[:, 3], b[:, 4], b[:, 5], b[:, 6]]),
            posts(trunks, 0.19 * trunks[:, 4], 3.0 * trunks[:, 4]), posts(self.lamps, 0.11, 8.0),
            posts(self.masts, 0.12, self.masts[:, 5]), posts(self.signs, 0.06, 2.5), posts(self.props, 0.3, 1.0),
        ]).reshape(-1, 6)  # fmt: skip


class Clearance:
    """Distance of points to the edge of lanes (negative inside)."""

    def __init__(self, network: RoadNetwork, kinds: tuple[int, ...] | None = None) -> None:
        lanes = np.ones(len(network.lane_kind), bool) if kinds is None else np.isin(network.lane_kind, kinds)
        keep = lanes[network.point_lane]
        self._xy = network.point_xyz_m[keep, :2].astype(np.float64)
        self._half = network.point_width_m[keep].astype(np.float64) / 2
        self._z = network.point_xyz_m[keep, 2].astype(np.float64)
        self._tree = cKDTree(self._xy)

    @property
    def empty(self) -> bool:
        """Whether there are no such lanes at all."""
        return len(self._xy) == 0

    def at(self, xy: Floats, within_m: float = np.inf) -> Floats:
        """(n,) metres; +inf where there are no such lanes, or perhaps where they are farther than `within_m`."""
        if self.empty:
            return np.full(len(xy), np.inf)
        reach_m = within_m + float(self._half.max())
        distance, index = self._tree.query(xy, k=min(8, len(self._xy)), distance_upper_bound=reach_m)
        distance, index = distance.reshape(len(xy), -1), index.reshape(len(xy), -1)
        half = np.append(self._half, 0.0)  # the tree gives an index past the end where it found nothing
        return np.asarray((distance - half[index]).min(axis=1))

    def height(self, xy: Floats) -> Floats:
        """Height (n,) of the nearest lane point."""
        if self.empty:
            return np.zeros(len(xy))
        return np.asarray(self._z[self._tree.query(xy)[1]])


def scenery(network: RoadNetwork, seed: int = 0) -> Scenery:
    """Place everything for a network; the same seed gives the same town."""
    rng = np.random.default_rng([seed, 90210])
    style = STYLES.get(network.name.rsplit("/", 1)[-1], SUBURB)
    driving, paved = Clearance(network, (LANE_DRIVING,)), Clearance(network)
    masts, heads = _signals(network, driving)
    lamps = _lamps(network, driving)
    signs = _signs(network, driving)
    buildings = _buildings(network, paved, style, rng)
    grid = Rectangles(buildings)
    props = _props(network, driving, grid, rng)
    trees = _trees(network, driving, paved, grid, style, rng)
    return Scenery(buildings, trees, lamps, masts, heads, signs, props)


def _along(
    network: RoadNetwork, lanes: NDArray[np.int64], every_m: float, start_m: float = 0.0
) -> tuple[Floats, Floats, Floats]:
    """xyz (n, 3), yaw and half width (n,) at regular steps along lanes."""
    picked: list[NDArray[np.int64]] = []
    for lane in lanes:
        first, count = int(network.lane_start[lane]), int(network.lane_count[lane])
        s = network.point_s_m[first : first + count]
        wanted = np.arange(start_m, float(network.lane_length_m[lane]), every_m)
        picked.append(first + np.clip(np.searchsorted(s, wanted), 0, count - 1))
    at = np.concatenate(picked) if picked else np.zeros(0, np.int64)
    return (network.point_xyz_m[at].astype(np.float64), network.point_yaw_rad[at].astype(np.float64),
            network.point_width_m[at].astype(np.float64) / 2)  # fmt: skip


def _right(yaw: Any) -> Floats:
    return np.asarray(np.stack([-np.sin(yaw), np.cos(yaw)], axis=-1))


def _ahead(yaw: Any) -> Floats:
    return np.asarray(np.stack([np.cos(yaw), np.sin(yaw)], axis=-1))


def _edge_lanes(network: RoadNetwork) -> NDArray[np.int64]:
    """Sidewalks where there are any, else the outermost driving lanes off junctions."""
    walks = np.nonzero((network.lane_kind == LANE_SIDEWALK) & (network.lane_junction < 0))[0]
    if len(walks) > 4:
        return walks
    return np.nonzero((network.lane_kind == LANE_DRIVING) & (network.lane_junction < 0) & (network.lane_right < 0))[0]


def _lamps(network: RoadNetwork, driving: Clearance) -> Floats:
    """Every 30 m beside the outermost driving lanes, just off the road, the arm over it."""
    lanes = np.nonzero((network.lane_kind == LANE_DRIVING) & (network.lane_junction < 0) & (network.lane_right < 0))[0]
    xyz, yaw, half = _along(network, lanes, 30.0, 12.0)
    out, taken = [], Rectangles()
    for extra in (0.9, 1.6, 2.6, 3.8):
        foot = xyz[:, :2] + _right(yaw) * (half + extra)[:, None]
        clear = driving.at(foot) if len(foot) else np.zeros(0)
        for k in np.nonzero((clear > CLEAR_M + 0.15) & (clear < extra + 0.6))[0]:
            box = (float(foot[k, 0]), float(foot[k, 1]), 0.0, 8.0, 8.0)
            if not taken.overlaps(box, 0.0):
                taken.add(box)
                out.append([*foot[k], xyz[k, 2], yaw[k] - np.pi / 2])
    return np.asarray(out, np.float64).reshape(-1, 4)


def _signals(network: RoadNetwork, driving: Clearance) -> tuple[Floats, Floats]:
    """A head at each light's own pole, and one beyond the junction unless that one is beyond already."""
    masts: list[list[float]] = []
    heads: list[list[float]] = []
    for light in range(len(network.light_xyz_m)):
        x, y, z = (float(v) for v in network.light_xyz_m[light])
        yaw = float(network.light_yaw_rad[light])
        foot = _clear_spot(driving, np.array([x, y]), _right(np.float64(yaw + np.pi)), 8.0)
        if foot is None:
            continue
        masts.append([*foot, z, yaw, 0.0, 3.6])
        heads.append([foot[0] + 0.32 * np.cos(yaw), foot[1] + 0.32 * np.sin(yaw), z + 3.2, yaw, light])
    seen: set[tuple[int, int]] = set()
    for stop in range(len(network.stop_xyz_m)):
        light, lane = int(network.stop_light[stop]), int(network.stop_lane[stop])
        if light < 0 or lane < 0:
            continue
        approach = (light, round(float(network.stop_yaw_rad[stop]) / 0.5))
        if approach in seen or _is_beyond(network, stop, light):
            continue
        seen.add(approach)
        far = _beyond(network, driving, stop, lane)
        if far is not None:
            foot, z, face, arm = far
            masts.append([*foot, z, face, arm, 5.6])
            left = _right(np.float64(face))
            for reach in (arm,) if arm < 6 else (arm, arm - 3.2):
                at = foot + left * reach + _ahead(np.float64(face)) * 0.32
                heads.append([at[0], at[1], z + (5.35 if arm else 4.6), face, light])
    return np.asarray(masts, np.float64).reshape(-1, 6), np.asarray(heads, np.float64).reshape(-1, 5)


def _is_beyond(network: RoadNetwork, stop: int, light: int) -> bool:
    """The light's own pole is in the view of a driver who waits at the stop line."""
    offset = network.light_xyz_m[light, :2].astype(float) - network.stop_xyz_m[stop, :2]
    yaw = np.float64(network.stop_yaw_rad[stop])
    ahead, side = float(offset @ _ahead(yaw)), float(offset @ _right(yaw))
    faces = np.cos(float(network.light_yaw_rad[light]) - float(yaw)) < -0.7
    return bool(faces and 8.0 < ahead < 50.0 and abs(side) < 0.5 * ahead)


def _clear_spot(driving: Clearance, start: Floats, direction: Floats, reach_m: float) -> Floats | None:
    """The first point from `start` along +- direction that is clear of driving lanes."""
    steps = np.arange(0.0, reach_m, 0.25)
    for sign in (1.0, -1.0):
        points = start + sign * steps[:, None] * direction
        good = np.nonzero(driving.at(points) > CLEAR_M + 0.15)[0]
        if len(good):
            return np.asarray(points[good[0]])
    return None


def _beyond(
    network: RoadNetwork, driving: Clearance, stop: int, lane: int
) -> tuple[Floats, float, float, float] | None:
    """Foot, height, facing and arm of the second pole, right of the exit that goes straight on."""
    yaw = float(network.stop_yaw_rad[stop])
    best, turn = -1, 0.6
    for follow in network.lane_next[lane]:
        if follow >= 0:
            last = int(network.lane_start[follow] + network.lane_count[follow] - 1)
            angle = abs((float(network.point_yaw_rad[last]) - yaw + np.pi) % (2 * np.pi) - np.pi)
            if angle < turn:
                best, turn = last, angle
    if best >= 0:
        out = float(network.point_yaw_rad[best])
        centre = network.point_xyz_m[best, :2].astype(np.float64) + _ahead(np.float64(out)) * 1.5
        steps = np.arange(float(network.point_width_m[best]) / 2 + 0.8, 16.0, 0.25)
        points = centre + steps[:, None] * _right(np.float64(out))
        good = np.nonzero(driving.at(points) > CLEAR_M + 0.15)[0]
        if len(good):
            return (
                points[good[0]],
                float(network.point_xyz_m[best, 2]),
                yaw + np.pi,
                float(min(9.0, np.floor(steps[good[0]]))),
            )
    steps = np.arange(9.0, 60.0, 0.5)
    points = network.stop_xyz_m[stop, :2].astype(np.float64) + steps[:, None] * _ahead(np.float64(yaw))
    good = np.nonzero(driving.at(points) > 1.0)[0]
    if len(good):
        return points[good[0]], float(network.stop_xyz_m[stop, 2]), yaw + np.pi, 0.0
    return None


def _signs(network: RoadNetwork, driving: Clearance) -> Floats:
    """Stop and yield signs where lanes give way, speed limits here and there."""
    rows = []
    lanes = [(int(lane), 0 if network.lane_yields[lane] == 2 else 1) for lane in np.nonzero(network.lane_yields)[0]]
    right = np.nonzero((network.lane_kind == LANE_DRIVING) & (network.lane_junction < 0) & (network.lane_right < 0))[0]
    lanes += [(int(lane), 2) for lane in right[::3] if network.lane_length_m[lane] > 40]
    for lane, kind in lanes:
        first, count = int(network.lane_start[lane]), int(network.lane_count[lane])
        at = first + (count - 1 if kind < 2 else min(10, count - 1))
        yaw = float(network.point_yaw_rad[at])
        start = network.point_xyz_m[at, :2] + _right(np.float64(yaw)) * (float(network.point_width_m[at]) / 2 + 0.8)
        foot = _clear_spot(driving, start, _right(np.float64(yaw)), 4.0)
        if foot is not None:
            rows.append([*foot, float(network.point_xyz_m[at, 2]), yaw + np.pi, kind])
    return np.asarray(rows, np.float64).reshape(-1, 5)


def _fits(paved: Clearance, boxes: Floats, gap: float) -> NDArray[np.bool_]:
    """Which rectangles (n, 5) x, y, yaw, half length, half width are clear of every lane by `gap`."""
    grid = np.linspace(-1, 1, 7)
    u, v = (w.ravel() for w in np.meshgrid(grid, grid))
    at = (
        boxes[:, None, :2]
        + (boxes[:, 3, None] * u)[..., None] * _ahead(boxes[:, 2])[:, None]
        + (boxes[:, 4, None] * v)[..., None] * _right(boxes[:, 2])[:, None]
    )
    return np.asarray(paved.at(at.reshape(-1, 2), gap).reshape(len(boxes), -1).min(axis=1) > gap)


def _buildings(network: RoadNetwork, paved: Clearance, style: int, rng: np.random.Generator) -> Floats:
    """A first row of houses along the streets and a second row of taller ones behind."""
    lanes = _edge_lanes(network)
    xyz, yaw, half = _along(network, lanes, {CITY: 9.0, SUBURB: 10.0, COUNTRY: 34.0}[style], 4.0)
    order = rng.permutation(len(xyz))[:9000]
    xyz, yaw, half = xyz[order], yaw[order], half[order]
    taken, rows = Rectangles(), []
    for depth_row in range(2):
        for shrink in (1.0, 0.62):
            n = len(xyz)
            if n == 0:
                break
            half_length = rng.uniform(6.5, 15.0, n) * shrink * (1.0 if style != COUNTRY else 0.7)
            half_width = rng.uniform(5.0, 9.0, n) * shrink
            setback = (
                {CITY: 1.2, SUBURB: 2.2, COUNTRY: 9.0}[style]
                + rng.uniform(0, 2.0, n)
                + (depth_row * rng.uniform(18, 45, n))
            )
            for side in (1.0, -1.0):
                middle = xyz[:, :2] + _right(yaw) * (side * (half + setback + half_width))[:, None]
                boxes = np.column_stack([middle, yaw, half_length, half_width])
                good = _fits(paved, boxes, 0.9)
                for k in np.nonzero(good)[0]:
                    box = tuple(float(v) for v in boxes[k])
                    if rng.random() < {CITY: 0.93, SUBURB: 0.80, COUNTRY: 0.30}[style] and not taken.overlaps(box, 1.2):
                        taken.add(box)
                        rows.append(_house(box, float(xyz[k, 2]), style, depth_row, rng))
    return np.asarray(rows, np.float64).reshape(-1, 9)


def _house(box: tuple[float, ...], z: float, style: int, depth_row: int, rng: np.random.Generator) -> list[float]:
    x, y, yaw, half_length, half_width = box
    floors = {CITY: int(rng.integers(3, 9)), SUBURB: int(rng.integers(2, 5)), COUNTRY: int(rng.integers(1, 3))}[style]
    if style == CITY and (depth_row or rng.random() < 0.12):
        floors += int(rng.integers(4, 16))
    if style == SUBURB and depth_row and rng.random() < 0.5:
        floors += int(rng.integers(1, 6))
    small = floors <= 2 and half_width < 8
    roof = (
        1
        if small or (style != CITY and floors <= 3 and rng.random() < 0.45)
        else 2
        if floors > 8 and rng.random() < 0.5
        else 0
    )
    tile = int(rng.choice([0, 1, 3, 4, 2, 6, 7, 9, 10, 8])) if floors < 9 else int(rng.choice([1, 4, 5, 11, 10, 7]))
    return [x, y, z - 0.3, yaw, half_length, half_width, 3.2 * floors + (2.6 if roof == 1 else 0.9), roof, tile]


def _props(network: RoadNetwork, driving: Clearance, houses: Rectangles, rng: np.random.Generator) -> Floats:
    """Benches, bins, hydrants and cabinets on the outer side of sidewalks."""
    walks = np.nonzero((network.lane_kind == LANE_SIDEWALK) & (network.lane_junction < 0))[0]
    xyz, yaw, half = _along(network, walks, 23.0, 9.0)
    rows = []
    for k in range(len(xyz)):
        if rng.random() > 0.55:
            continue
        kind = int(rng.choice(5, p=[0.3, 0.28, 0.16, 0.2, 0.06]))
        sides = []
        for side in (1.0, -1.0):
            at = xyz[k, :2] + _right(yaw[k]) * side * (half[k] - (0.35 if kind < 4 else 0.0))
            sides.append((float(driving.at(at[None])[0]), side, at))
        clear, side, at = max(sides, key=lambda item: item[0])
        if clear > (1.3 if kind < 4 else 2.8) and not houses.overlaps((float(at[0]), float(at[1]), 0.0, 0.9, 0.9), 0.2):
            rows.append([*at, xyz[k, 2], yaw[k] - side * np.pi / 2, kind])
    return np.asarray(rows, np.float64).reshape(-1, 5)


def _trees(network: RoadNetwork, driving: Clearance, paved: Clearance, houses: Rectangles, style: int,
           rng: np.random.Generator) -> Floats:  # fmt: skip
    """Street trees just off the pavement, and groups on open land."""
    lanes = _edge_lanes(network)
    xyz, yaw, half = _along(network, lanes, {CITY: 11.0, SUBURB: 9.0, COUNTRY: 12.0}[style], 3.0)
    rows: list[list[float]] = []
    taken = Rectangles()
    spots: list[Floats] = []
    for side in (1.0, -1.0):
        out = half + (0.9 if style != COUNTRY else 4.0) + rng.uniform(0, 1.5, len(xyz))
        spots.append(np.column_stack([xyz[:, :2] + _right(yaw) * (side * out)[:, None], xyz[:, 2]]))
    for _ in range(2):
        wild = rng.normal(0, 1, (len(xyz), 2)) * 12.0 + xyz[:, :2]
        away = _right(yaw) * rng.choice([-1.0, 1.0], len(xyz))[:, None] * rng.uniform(10, 60, len(xyz))[:, None]
        spots.append(np.column_stack([wild + away, xyz[:, 2]]))
    at = np.concatenate(spots) if spots else np.zeros((0, 3))
    if len(at) > 24000:
        at = at[rng.permutation(len(at))[:24000]]
    clear = paved.at(at[:, :2]) if len(at) else np.zeros(0)
    open_road = driving.at(at[:, :2]) if len(at) else np.zeros(0)
    keep = np.nonzero((clear > 0.5) & (open_road > 1.4) & (rng.random(len(at)) < 0.62))[0]
    for k in keep:
        x, y, z = (float(v) for v in at[k])
        if taken.overlaps((x, y, 0.0, 1.5, 1.5), 0.5) or houses.overlaps((x, y, 0.0, 1.3, 1.3), 0.3):
            continue
        taken.add((x, y, 0.0, 1.5, 1.5))
        remote = float(clear[k]) > 6.0
        kind = int(
            rng.choice(
                7, p=[0.2, 0.2, 0.15, 0.15, 0.1, 0.08, 0.12] if remote else [0.26, 0.24, 0.2, 0.18, 0.0, 0.0, 0.12]
            )
        )
        scale = float(rng.uniform(0.75, 1.5 if remote else 1.1))
        if open_road[k] < 2.2 * scale and kind < 4:
            scale = 0.75
        rows.append([x, y, z, float(rng.uniform(0, 2 * np.pi)), scale, kind])
    return np.asarray(rows, np.float64).reshape(-1, 6)
