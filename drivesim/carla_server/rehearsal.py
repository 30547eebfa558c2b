"""One small measurement of every kind of sensor that draws or casts rays, before anybody listens.

Compiling their kernels takes a minute or more the first time on a machine; a client would give up waiting for its tick.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from drivesim.carla_server.actors import ServerActor
from drivesim.carla_server.cameras import Shot
from drivesim.carla_server.painter import Painter
from drivesim.carla_server.sensor_attributes import SENSOR_INDEX
from drivesim.carla_server.sensors import RADAR, RAY_SENSORS, Sensor, SensorRig

SMALL = {"image_size_x": "16", "image_size_y": "9", "lens_circle_multiplier": "1", "points_per_second": "320"}


def rehearse(rig: SensorRig, painter: Painter) -> None:
    """Measure twice, because some sensors compare with what they saw before."""
    given = tuple((name, 4, value) for name, value in SMALL.items())
    kinds = [name for name in SENSOR_INDEX if name.startswith("sensor.camera.") or name in RAY_SENSORS]
    sensors = [Sensor.of(ServerActor(0, name, attributes=given)) for name in kinds]
    for turn in range(2):
        shots = [Shot(sensor.actor, sensor.camera, np.eye(4), np.zeros(3), -1, sensor.kept)
                 for sensor in sensors if sensor.camera is not None]  # fmt: skip
        sweeps = [_sweep(sensor) for sensor in sensors if sensor.camera is None]
        rig.draw(shots, 0, 0.05 * turn, lossy=True, sweeps=sweeps)
        painter.finish()


def _sweep(sensor: Sensor) -> Any:
    pose = (sensor.actor, np.eye(4), np.zeros(3), -1, 0.1)
    return sensor.kept.sweep(*pose, np.zeros(3)) if sensor.actor.type_id == RADAR else sensor.kept.sweep(*pose)
