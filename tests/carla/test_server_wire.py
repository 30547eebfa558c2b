"""Bytes and arithmetic of the wire without a client."""

from __future__ import annotations

import math

import numpy as np
import pytest

from drivesim.carla_server import navmesh, snapshot
from drivesim.carla_server.blueprints import LIBRARY
from drivesim.carla_server.cameras import depth_bgra, label_bgra
from drivesim.carla_server.geography import GeoReference
from drivesim.carla_server.lights import StopBoxes
from drivesim.carla_server.poses import matrix_from_pose, pose_from_matrix
from drivesim.carla_server.structs import EpisodeSettings, transform, transform_to_wire, vehicle_control
from drivesim.town import towns

carla = pytest.importorskip("carla")


def test_records_have_the_wires_sizes():
    assert snapshot.HEADER.size == 36
    for record in (snapshot.VEHICLE_RECORD, snapshot.WALKER_RECORD, snapshot.LIGHT_RECORD):
        assert record.itemsize == 119


def test_matrices_are_the_clients():
    rng = np.random.default_rng(1)
    xyz, rotation = rng.normal(size=(20, 3)) * 50, rng.uniform(-1.4, 1.4, (20, 3))
    matrix = matrix_from_pose(xyz, rotation)
    for place, turn, ours in zip(xyz, rotation, matrix, strict=True):
        roll, pitch, yaw = np.degrees(turn)
        theirs = carla.Transform(carla.Location(*place), carla.Rotation(pitch=pitch, yaw=yaw, roll=roll)).get_matrix()
        np.testing.assert_allclose(ours, theirs, atol=2e-5)
    back = pose_from_matrix(matrix)
    np.testing.assert_allclose(back[0], xyz)
    np.testing.assert_allclose(back[1], rotation, atol=1e-9)


def test_places_on_the_globe_are_the_clients():
    text = towns.opendrive_text("Drivetown")
    town, reference = carla.Map("Drivetown", text), GeoReference.of(text)
    for place in ((0.0, 0.0, 0.0), (500.0, 0.0, 1.0), (-300.0, 800.0, 2.0)):
        theirs = town.transform_to_geolocation(carla.Location(*place))
        assert reference.locate(*place) == pytest.approx((theirs.latitude, theirs.longitude, theirs.altitude), abs=1e-9)


def test_structs_are_lenient_about_length_and_strict_about_numbers():
    assert EpisodeSettings.from_wire([True, False, [True, 0.05]]).fixed_delta_s == 0.05
    assert EpisodeSettings.from_wire(EpisodeSettings().to_wire()) == EpisodeSettings()
    assert vehicle_control([0.5, 3.0, 0.0, True])[:4] == [0.5, 1.0, 0.0, 1.0]
    xyz, rotation = transform([[1, 2, 3], [10, 20, 30]])
    np.testing.assert_allclose(transform_to_wire(xyz, rotation)[1], [10, 20, 30])
    for wrong in ([[math.nan, 0, 0], [0, 0, 0]], [[0, 0, 1e9], [0, 0, 0]], "x", [["1", 0, 0]]):
        with pytest.raises((ValueError, TypeError)):
            transform(wrong)


def test_depth_and_labels_decode_as_carla_documents():
    metres = np.array([[0.0, 0.5, 17.25, 999.0, 5000.0]], np.float32)
    pixels = depth_bgra(metres).astype(np.float64)
    decoded = (pixels[..., 2] + 256 * pixels[..., 1] + 65536 * pixels[..., 0]) / (2**24 - 1) * 1000
    np.testing.assert_allclose(decoded, np.minimum(metres, 1000.0), atol=1e-3)
    labels = label_bgra(np.array([[14]], np.uint8), np.array([[0x1234]], np.uint16))
    assert labels[0, 0].tolist() == [0x12, 0x34, 14, 255]


def test_the_library_holds_what_scripts_pick_by_name():
    for name in ("vehicle.tesla.model3", "vehicle.ford.mustang", "walker.pedestrian.0001", "sensor.camera.rgb",
                 "sensor.other.collision", "controller.ai.walker"):  # fmt: skip
        assert name in LIBRARY
    assert len({blueprint.uid for blueprint in LIBRARY.values()}) == len(LIBRARY)


def test_walks_are_one_connected_net_around_a_block():
    network = towns.road_network("Drivetown")
    mesh = navmesh._Mesh()
    navmesh._join_ends(mesh, navmesh._add_sidewalks(mesh, network))
    navmesh._add_crosswalks(mesh, network)
    neighbours = navmesh._neighbours(mesh)
    for number, around in enumerate(neighbours):
        assert all(number + 1 in neighbours[other - 1] for other in around if other)
    assert navmesh.navigation_file(network) == navmesh.navigation_file(network)


def test_a_front_bumper_at_the_line_is_in_the_stop_box():
    network = towns.road_network("Drivetown")
    boxes, stop = StopBoxes(network), int(np.flatnonzero(network.stop_light >= 0)[0])
    yaw = float(network.stop_yaw_rad[stop])
    ahead = np.array([math.cos(yaw), math.sin(yaw), 0.0])
    line = network.stop_xyz_m[stop].astype(np.float64)
    before = [line - (2.4 + gap) * ahead for gap in (1.0, 5.0, 9.0, -2.5)]
    found = boxes.lights_at(np.array(before), np.full(4, yaw), np.full(4, 2.4))
    light = int(network.stop_light[stop])
    assert found.tolist() == [light, light, -1, -1]
    assert boxes.lights_at(np.array(before[:1]), np.array([yaw + math.pi]), np.array([2.4])).tolist() == [-1]
