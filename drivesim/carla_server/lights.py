"""Traffic lights and signs as actors, and which vehicle stands in which light's stop box."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from drivesim.carla_server.actors import ActorTable
from drivesim.carla_server.poses import Floats, matrix_from_pose
from drivesim.carla_server.structs import Vector
from drivesim.town.roads import RoadNetwork
from drivesim.town.state import LIGHT_GREEN

TAG_TRAFFIC_LIGHT, TAG_TRAFFIC_SIGN = b"\x07", b"\x08"
BOX_AHEAD_M, BOX_PAST_M = 6.0, 1.5  # the front bumper: before and past the stop line
BOX_HALF_DEPTH_M, BOX_HALF_HEIGHT_M = 1.5, 2.0
NEAREST_STOPS = 6
YIELD, STOP = 1, 2


class StopBoxes:
    """Finds, for all vehicles at once, the light whose stop box the front bumper is in."""

    def __init__(self, network: RoadNetwork) -> None:
        governed = np.flatnonzero(network.stop_light >= 0)
        self._xyz = network.stop_xyz_m[governed].astype(np.float64)
        yaw = network.stop_yaw_rad[governed].astype(np.float64)
        self._forward = np.stack([np.cos(yaw), np.sin(yaw)], axis=-1)
        self._half_width_m = network.stop_half_width_m[governed].astype(np.float64)
        self._light = network.stop_light[governed]
        self._tree = cKDTree(self._xyz[:, :2]) if len(governed) else None

    def lights_at(self, xyz: Floats, yaw: Floats, half_length_m: Floats) -> NDArray[np.int32]:
        """The light of each vehicle.

        Args:
            xyz: (n, 3) centres; yaw: (n,) rad; half_length_m: (n,).

        Returns:
            (n,) light, or -1.
        """
        lights = np.full(len(xyz), -1, np.int32)
        if self._tree is None or not len(xyz):
            return lights
        heading = np.stack([np.cos(yaw), np.sin(yaw)], axis=-1)
        front = xyz[:, :2] + heading * half_length_m[:, None]
        count = min(NEAREST_STOPS, len(self._light))
        distance, stop = self._tree.query(front, k=count, distance_upper_bound=BOX_AHEAD_M + 2.0)
        distance, stop = distance.reshape(-1, count), stop.reshape(-1, count)
        found = np.isfinite(distance)
        stop = np.where(found, stop, 0)
        away = self._xyz[stop, :2] - front[:, None]
        forward = self._forward[stop]
        ahead_m = (away * forward).sum(-1)
        aside_m = np.abs(away[..., 0] * forward[..., 1] - away[..., 1] * forward[..., 0])
        found &= (ahead_m > -BOX_PAST_M) & (ahead_m < BOX_AHEAD_M) & (aside_m < self._half_width_m[stop])
        found &= (forward * heading[:, None]).sum(-1) > 0.7
        found &= np.abs(self._xyz[stop, 2] - xyz[:, None, 2]) < 3.0
        first = found.argmax(axis=1)
        rows = np.arange(len(xyz))
        return np.where(found.any(axis=1), self._light[stop[rows, first]], lights).astype(np.int32)


def states_at(lights: NDArray[np.int32], light_state: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The state of each vehicle's light; green where it has none."""
    if not len(light_state):
        return np.full(len(lights), LIGHT_GREEN, np.uint8)
    return np.where(lights >= 0, light_state[lights], LIGHT_GREEN).astype(np.uint8)


def add_lights(table: ActorTable, network: RoadNetwork) -> None:
    """One `traffic.traffic_light` actor for each light, in the network's order.

    The client walks along the light's forward axis, over the extent of its box, to find the stop waypoints; so forward
    is across the lanes and the box lies on the stop line.
    """
    for light in range(len(network.light_signal_id)):
        stops = np.flatnonzero(network.stop_light == light)
        yaw = float(network.stop_yaw_rad[stops[0]]) if len(stops) else float(network.light_yaw_rad[light]) + np.pi
        matrix = _upright(network.light_xyz_m[light], yaw + np.pi / 2)
        centre, extent = _stop_box(matrix, network, stops)
        table.add("traffic.traffic_light", light=light, matrix=matrix, box_centre=centre, box_extent=extent,
                  tags=TAG_TRAFFIC_LIGHT)  # fmt: skip


def add_signs(table: ActorTable, network: RoadNetwork) -> None:
    """A stop or yield sign at the right-hand end of each stop line that no light governs."""
    for stop in np.flatnonzero(network.stop_light < 0):
        kind = int(network.lane_yields[network.stop_lane[stop]])
        type_id = "traffic.yield" if kind == YIELD else "traffic.stop"
        yaw = float(network.stop_yaw_rad[stop])
        aside_m = float(network.stop_half_width_m[stop]) + 1.0
        foot = network.stop_xyz_m[stop] + aside_m * np.array([-np.sin(yaw), np.cos(yaw), 0.0])
        matrix = _upright(foot, yaw + np.pi / 2)
        centre, extent = _stop_box(matrix, network, np.array([stop]))
        table.add(type_id, matrix=matrix, box_centre=centre, box_extent=extent, tags=TAG_TRAFFIC_SIGN)


def _upright(xyz: NDArray[np.floating], yaw: float) -> Floats:
    return matrix_from_pose(np.asarray(xyz, np.float64), np.array([0.0, 0.0, yaw]))


def _stop_box(matrix: Floats, network: RoadNetwork, stops: NDArray[np.int64]) -> tuple[Vector, Vector]:
    """Centre and half sizes, in the actor's frame, of the box over its stop lines (x across the lanes)."""
    if not len(stops):
        return (0.0, 0.0, 0.0), (BOX_HALF_DEPTH_M, BOX_HALF_DEPTH_M, BOX_HALF_HEIGHT_M)
    away = network.stop_xyz_m[stops].astype(np.float64) - matrix[:3, 3]
    local = away @ matrix[:3, :3]
    half = network.stop_half_width_m[stops].astype(np.float64)
    low, high = (local[:, 0] - half).min(), (local[:, 0] + half).max()
    centre = (float(low + high) / 2, float(local[:, 1].mean()), float(local[:, 2].mean()) + 0.5)
    return centre, (float(high - low) / 2, BOX_HALF_DEPTH_M, BOX_HALF_HEIGHT_M)
