"""The things of a map that are no actors: houses, trees, lamps, poles, signs, street furniture and the roads.

Clients list them (environment objects, level boxes, names), hide them one by one or by layer, repaint them, and meet
them with rays. Street lamps are lights besides; see street_lamps.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drivesim.carla_server.structs import box_to_wire, transform_to_wire
from drivesim.town.roads import LANE_DRIVING, LANE_SIDEWALK, RoadNetwork
from drivesim.town.scenery import Scenery

Floats = NDArray[np.float64]
ROADS, SIDEWALKS, BUILDINGS, POLES, TRAFFIC_LIGHT, TRAFFIC_SIGNS, VEGETATION, STATIC = 1, 2, 3, 6, 7, 8, 9, 20
ANY_LABEL = 255
LAYER_BUILDINGS, LAYER_FOLIAGE, LAYER_PROPS, LAYER_STREET_LIGHTS = 1, 4, 64, 128
ALL_LAYERS = 0xFFFF
BUSH = 6  # as a tree's kind
FIRST_ID = 1
SIGN_NAMES = ("StopSign", "YieldSign", "SpeedLimitSign")
PROP_NAMES = ("Bench", "Bin", "Hydrant", "Cabinet", "BusShelter")
PROP_HALF_M = ((0.28, 0.8, 0.45), (0.27, 0.27, 0.48), (0.14, 0.14, 0.38), (0.25, 0.5, 0.63), (0.7, 1.9, 1.24))
LAMP_HALF_M, HEAD_HALF_M, SIGN_HALF_M = (0.11, 0.11, 4.0), (0.2, 0.25, 0.55), (0.06, 0.4, 1.25)
MAST_HALF_WIDTH_M = 0.12
ROAD_HALF_HEIGHT_M = 0.05


@dataclass(frozen=True)
class _Group:
    """Things of one kind: foot (n, 3), yaw (n,), half sizes (n, 3)."""

    names: list[str]
    label: int
    layer: int
    foot: Floats
    yaw: Floats
    half: Floats
    centre_lift: Floats  # (n,) of the box's centre above the foot


class MapObjects:
    """All of them in rows; `hidden` says which are not there now."""

    def __init__(self, network: RoadNetwork, scenery: Scenery) -> None:
        groups = [*_standing(scenery), *_surfaces(network)]
        self.names: list[str] = [name for group in groups for name in group.names]
        counts = [len(group.names) for group in groups]
        self.label = np.repeat(np.array([group.label for group in groups], np.uint8), counts)
        self.layer = np.repeat(np.array([group.layer for group in groups], np.uint16), counts)
        self.foot: Floats = np.concatenate([group.foot for group in groups])
        self.yaw: Floats = np.concatenate([group.yaw for group in groups])
        self.half: Floats = np.concatenate([group.half for group in groups])
        self.centre: Floats = self.foot.copy()
        self.centre[:, 2] += np.concatenate([group.centre_lift for group in groups])
        self.flat = np.isin(self.label, (ROADS, SIDEWALKS))  # surfaces: boxes of them are no obstacles
        self.first_lamp = len(scenery.buildings) + len(scenery.trees)
        self.lamps = len(scenery.lamps)
        self._solids = scenery.solids
        self._solid_object = _solid_objects(scenery)
        self._by_name = {name: row for row, name in enumerate(self.names)}
        self._disabled = np.zeros(len(self.names), bool)
        self._layers = ALL_LAYERS

    @property
    def hidden(self) -> NDArray[np.bool_]:
        """(n,) what is switched off, itself or with its layer; roads always stay."""
        off_layer = (self.layer > 0) & ((self.layer & np.uint16(self._layers)) == 0)
        return np.asarray((self._disabled | off_layer) & ~self.flat)

    @property
    def solids(self) -> Floats:
        """The boxes that stop a car now, as Scenery.solids has them."""
        return np.asarray(self._solids[~self.hidden[self._solid_object]])

    def enable(self, ids: list[int], enabled: bool) -> bool:
        """Switch objects on or off; unknown ids are passed over. Did anything change?"""
        rows = np.array(ids, np.int64) - FIRST_ID
        rows = rows[(rows >= 0) & (rows < len(self.names))]
        before = self.hidden
        self._disabled[rows] = not enabled
        return bool((self.hidden != before).any())

    def show_layers(self, layers: int, shown: bool) -> bool:
        """Load or unload carla.MapLayer bits. Did anything change?"""
        before = self.hidden
        self._layers = self._layers | layers if shown else self._layers & ~layers & ALL_LAYERS
        return bool((self.hidden != before).any())

    def row(self, name: str) -> int:
        """The row of a name, or -1."""
        return self._by_name.get(name, -1)

    def rows(self, label: int) -> NDArray[np.int64]:
        """Rows of a CityObjectLabel that are shown; ANY_LABEL is all."""
        chosen = ~self.hidden
        return np.flatnonzero(chosen & (self.label == label) if label != ANY_LABEL else chosen)

    def box_to_wire(self, row: int) -> list[Any]:
        """World bounding box of a row."""
        return box_to_wire(self.centre[row], self.half[row], 0, float(np.degrees(self.yaw[row])))

    def to_wire(self, row: int) -> list[Any]:
        """EnvironmentObject of a row."""
        pose = transform_to_wire(self.foot[row], (0.0, 0.0, float(self.yaw[row])))
        return [pose, self.box_to_wire(row), FIRST_ID + row, self.names[row], int(self.label[row])]


def _standing(s: Scenery) -> list[_Group]:
    """In the order of Scenery's fields."""
    k = s.trees[:, 4]
    bush = s.trees[:, 5] == BUSH
    crown, tall = np.where(bush, 0.6, 1.55) * k, np.where(bush, 0.9, 6.3) * k
    masts = np.column_stack([np.full((len(s.masts), 2), MAST_HALF_WIDTH_M), s.masts[:, 5] / 2])
    houses = np.column_stack([s.buildings[:, 4:6], s.buildings[:, 6] / 2])
    sign_names = [f"{SIGN_NAMES[int(kind)]}_{n:04d}" for n, kind in enumerate(s.signs[:, 4])]
    prop_names = [f"{PROP_NAMES[int(kind)]}_{n:04d}" for n, kind in enumerate(s.props[:, 4])]
    prop_half = np.array(PROP_HALF_M)[s.props[:, 4].astype(np.int64)].reshape(-1, 3)
    tree_names = [f"{'Bush' if low else 'Tree'}_{n:04d}" for n, low in enumerate(bush)]

    def group(names: list[str] | str, label: int, layer: int, rows: Floats, half: Floats, lift: float = 1.0) -> _Group:
        named = [f"{names}_{n:04d}" for n in range(len(rows))] if isinstance(names, str) else names
        return _Group(named, label, layer, rows[:, :3], rows[:, 3], half, lift * half[:, 2])

    return [
        group("House", BUILDINGS, LAYER_BUILDINGS, s.buildings, houses),
        group(tree_names, VEGETATION, LAYER_FOLIAGE, s.trees, np.column_stack([crown, crown, tall / 2])),
        group("StreetLamp", POLES, LAYER_STREET_LIGHTS, s.lamps, np.tile(LAMP_HALF_M, (len(s.lamps), 1))),
        group("SignalMast", POLES, 0, s.masts, masts),
        group("SignalHead", TRAFFIC_LIGHT, 0, s.heads, np.tile(HEAD_HALF_M, (len(s.heads), 1)), 0.0),
        group(sign_names, TRAFFIC_SIGNS, 0, s.signs, np.tile(SIGN_HALF_M, (len(s.signs), 1))),
        group(prop_names, STATIC, LAYER_PROPS, s.props, prop_half),
    ]


def _surfaces(network: RoadNetwork) -> list[_Group]:
    """One box, along the axes, around the driving lanes of each road, and one around its sidewalks."""
    groups = []
    for kind, label, name in ((LANE_DRIVING, ROADS, "Road"), (LANE_SIDEWALK, SIDEWALKS, "Sidewalk")):
        points = np.flatnonzero(network.lane_kind[network.point_lane] == kind)
        roads = network.lane_road[network.point_lane[points]]
        ids, which = np.unique(roads, return_inverse=True)
        low, high = np.full((len(ids), 3), np.inf), np.full((len(ids), 3), -np.inf)
        xyz = network.point_xyz_m[points].astype(np.float64)
        margin = np.zeros_like(xyz)
        margin[:, :2] = network.point_width_m[points, None] / 2
        np.minimum.at(low, which, xyz - margin)
        np.maximum.at(high, which, xyz + margin)
        half = (high - low) / 2
        half[:, 2] += ROAD_HALF_HEIGHT_M
        names = [f"{name}_{road:04d}" for road in ids.tolist()]
        groups.append(_Group(names, label, 0, (low + high) / 2, np.zeros(len(ids)), half, np.zeros(len(ids))))
    return groups


def _solid_objects(s: Scenery) -> NDArray[np.int64]:
    """The object's row of every row of Scenery.solids: trees without the bushes, no signal heads."""
    counts = [len(rows) for rows in (s.buildings, s.trees, s.lamps, s.masts, s.heads, s.signs, s.props)]
    starts = np.concatenate([[0], np.cumsum(counts)])
    rows = [np.arange(starts[k], starts[k + 1]) for k in range(7)]
    rows[1] = rows[1][s.trees[:, 5] < BUSH]
    return np.concatenate([rows[k] for k in (0, 1, 2, 3, 5, 6)]).astype(np.int64)
