"""The baked road network of a town: plain arrays, no OpenDRIVE, no carla package.

Frame: CARLA's world frame (left-handed: x east, y south, z up; yaw = atan2(dy, dx), radians).
A lane is a polyline of points about 1 m apart, in driving direction. Index -1 means "none".
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]
Int = NDArray[np.int32]
Byte = NDArray[np.uint8]

LANE_DRIVING, LANE_SIDEWALK, LANE_SHOULDER, LANE_PARKING, LANE_BIKING, LANE_MEDIAN = range(6)
MARK_SOLID, MARK_BROKEN, MARK_SOLID_SOLID, MARK_CURB, MARK_STOP_LINE = range(5)
COLOR_WHITE, COLOR_YELLOW = range(2)


@dataclass(frozen=True)
class RoadNetwork:
    """Everything the town needs to know about its roads; P points, L lanes, K lights, Q stop lines."""

    name: str
    # lane points, grouped by lane
    point_xyz_m: Float  # (P, 3)
    point_yaw_rad: Float  # (P,)
    point_width_m: Float  # (P,)
    point_s_m: Float  # (P,) arc length from the lane's start
    point_curvature_1pm: Float  # (P,) signed, positive turns towards +y (right, in this frame)
    point_speed_limit_mps: Float  # (P,)
    # lanes (one lane of one lane section), in driving direction
    lane_start: Int  # (L,) first point
    lane_count: Int  # (L,) number of points, >= 2
    lane_length_m: Float  # (L,)
    lane_kind: Byte  # (L,) LANE_*
    lane_road: Int  # (L,) OpenDRIVE road id
    lane_section: Int  # (L,) OpenDRIVE lane section index
    lane_opendrive_id: Int  # (L,) OpenDRIVE lane id (signed)
    lane_junction: Int  # (L,) OpenDRIVE junction id or -1
    lane_next: Int  # (L, 6) successors, padded with -1
    lane_previous: Int  # (L, 6)
    lane_left: Int  # (L,) neighbouring driving lane of the SAME direction, on the left as the driver sees it
    lane_right: Int  # (L,)
    lane_light: Int  # (L,) light that governs the END of this approach lane (its stop line), or -1
    lane_yields: Byte  # (L,) 1 if the end of this lane gives way: 1 yield sign, 2 stop sign
    conflict_start: Int  # (L + 1,) CSR: junction lanes whose centre lines cross or merge with this one
    conflict_lane: Int  # (C,)
    # traffic lights and stop lines
    light_signal_id: NDArray[np.str_]  # (K,) OpenDRIVE signal id
    light_xyz_m: Float  # (K, 3) foot of the pole
    light_yaw_rad: Float  # (K,) the direction the lamp FACES (towards the traffic it governs)
    light_group: Int  # (K,) index of the junction group that cycles together
    light_phase: Int  # (K,) phase within the group during which this light is green
    stop_xyz_m: Float  # (Q, 3) centre of the stop line, on the lane's centre line
    stop_yaw_rad: Float  # (Q,) driving direction at the stop line
    stop_half_width_m: Float  # (Q,)
    stop_lane: Int  # (Q,) the approach lane that ends at it
    stop_light: Int  # (Q,) its light, or -1 where a stop sign governs
    # paint
    mark_xyz_m: Float  # (M, 3) polyline points
    mark_start: Int  # (B,)
    mark_count: Int  # (B,)
    mark_kind: Byte  # (B,) MARK_*
    mark_color: Byte  # (B,) COLOR_*
    mark_width_m: Float  # (B,)
    # crosswalk polygons
    crosswalk_xyz_m: Float  # (X, 3)
    crosswalk_start: Int  # (W,)
    crosswalk_count: Int  # (W,)
    # spawn points: driving lanes, off junctions, spaced for the largest vehicle
    spawn_xyz_m: Float  # (N, 3)
    spawn_yaw_rad: Float  # (N,)
    spawn_lane: Int  # (N,)
    spawn_s_m: Float  # (N,)
    # uniform grid over the DRIVING lane points, CSR by cell (row-major: y, x)
    grid_origin_m: Float  # (2,)
    grid_shape: Int  # (2,) rows, columns
    grid_cell_m: Float  # (1,)
    grid_start: Int  # (rows * columns + 1,)
    grid_point: Int  # (P,)
    point_lane: Int  # (P,) lane of each point

    def save(self, path: Path) -> None:
        """Write atomically as one uncompressed .npz (no pickles)."""
        arrays = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "name"}
        partial = path.with_name(f"{path.stem}.{uuid.uuid4().hex[:12]}.partial.npz")  # two processes may bake at once
        partial.parent.mkdir(parents=True, exist_ok=True)
        np.savez(partial, _meta=np.array(json.dumps({"name": self.name})), **arrays)
        partial.replace(path)

    @staticmethod
    def load(path: Path) -> RoadNetwork:
        """Read what `save` wrote.

        Raises:
            ValueError: the file lacks a field of this version.
        """
        with np.load(path, allow_pickle=False) as data:
            wanted = [f.name for f in fields(RoadNetwork) if f.name != "name"]
            missing = [name for name in wanted if name not in data]
            if missing:
                raise ValueError(f"{path} was baked by another version (lacks {missing[0]}); delete it")
            meta: dict[str, Any] = json.loads(str(data["_meta"]))
            return RoadNetwork(name=meta["name"], **{name: data[name] for name in wanted})
