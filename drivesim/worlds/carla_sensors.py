"""The sensors on the ego in CARLA: the rig's cameras and the collision sensor, read in step with the ticks."""

from __future__ import annotations

import contextlib
import math
import queue
import time
from typing import Any

import carla
import numpy as np
from numba import njit
from numpy.typing import NDArray

from drivesim.datatypes import CameraRig
from drivesim.worlds.carla_frames import camera_mount, transform_from_pose
from drivesim.worlds.ego_motion import EGO_AXLE_TO_CENTER_M
from drivesim.worlds.errors import WorldError

PICTURE_TIMEOUT_S = 30.0
FIRST_PICTURE_TIMEOUT_S = 5.0


class FirstPictureLostError(WorldError):
    """A camera's subscription came too late for the first tick: the episode must be set up again."""


class SensorSet:
    """Sensors of one ego. Data arrive on the client's own threads; here they wait in queues for their frame."""

    def __init__(
        self, world: Any, ego: Any, rig: CameraRig | None, camera_period_s: float, dt_s: float, *, every_tick: bool
    ) -> None:
        """Spawn the sensors on the ego.

        Args:
            world, ego: of the carla package.
            rig: cameras; None has none.
            camera_period_s: time between the pictures that `pictures` gives.
            dt_s: of a tick.
            every_tick: have the server draw at every tick and pick ours, instead of trusting its `sensor_tick`.
        """
        self._images: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
        self._collisions: queue.SimpleQueue[tuple[int, int, str, float]] = queue.SimpleQueue()
        self._waiting: dict[int, dict[int, Any]] = {}  # frame -> camera -> image
        self._period_ticks = max(round(camera_period_s / dt_s), 1)
        self._first_picture: int | None = None
        library = world.get_blueprint_library()
        blueprint = library.find("sensor.other.collision")
        self._collision = world.spawn_actor(blueprint, carla.Transform(), attach_to=ego)
        self._collision.listen(self._touched)
        self._cameras: list[Any] = []
        for camera in rig.cameras if rig is not None else ():
            blueprint = library.find("sensor.camera.rgb")
            blueprint.set_attribute("image_size_x", str(camera.width_px))
            blueprint.set_attribute("image_size_y", str(camera.height_px))
            blueprint.set_attribute("fov", f"{math.degrees(camera.fov_rad):.6f}")
            blueprint.set_attribute("sensor_tick", "0.0" if every_tick else f"{camera_period_s:g}")
            mount = transform_from_pose(camera_mount(camera, EGO_AXLE_TO_CENTER_M))
            self._cameras.append(world.spawn_actor(blueprint, mount, attach_to=ego))

    @property
    def actor_ids(self) -> list[int]:
        """Ids of all sensor actors."""
        return [sensor.id for sensor in (*self._cameras, self._collision)]

    def listen(self, pause_s: float) -> None:
        """Start the cameras; the next tick has the first pictures.

        The client subscribes behind our back and does not say when it is done: `pause_s` gives it the time.
        """
        for index, camera in enumerate(self._cameras):
            camera.listen(_keeper(self._images, index))
        time.sleep(pause_s if self._cameras else 0.0)

    def pictures(self, frame_id: int) -> NDArray[np.uint8] | None:
        """(v, h, w, 3) RGB where this tick has pictures, else None. Waits for those that are on their way.

        Raises:
            FirstPictureLostError: those of the first tick do not come.
            WorldError: later ones do not come.
        """
        timeout_s = PICTURE_TIMEOUT_S
        if self._first_picture is None:
            self._first_picture, timeout_s = frame_id, FIRST_PICTURE_TIMEOUT_S
        while not self._images.empty():
            self._keep(*self._images.get())
        if not self._cameras or (frame_id - self._first_picture) % self._period_ticks:
            self._waiting.pop(frame_id - 1, None)
            return None
        deadline = time.monotonic() + timeout_s
        while len(self._waiting.get(frame_id, ())) < len(self._cameras):
            try:
                index, image = self._images.get(timeout=max(deadline - time.monotonic(), 0.001))
            except queue.Empty:
                got = f"{len(self._waiting.get(frame_id, ()))} of {len(self._cameras)} pictures of frame {frame_id}"
                lost = FirstPictureLostError if frame_id == self._first_picture else WorldError
                raise lost(f"only {got} came within {timeout_s:.0f} s") from None
            self._keep(index, image)
        images = self._waiting.pop(frame_id)
        self._waiting = {key: value for key, value in self._waiting.items() if key > frame_id}
        return rgb_of([images[index] for index in range(len(self._cameras))])

    def _keep(self, index: int, image: Any) -> None:
        self._waiting.setdefault(int(image.frame), {})[index] = image

    def drain_contacts(self) -> list[tuple[int, int, str, float]]:
        """(frame, carla id of the other, its type id, impulse) of the contacts that arrived."""
        found = []
        while not self._collisions.empty():
            found.append(self._collisions.get())
        return found

    def stop(self) -> None:
        """Stop listening; the client aborts the interpreter when a sensor still listens at exit."""
        for sensor in (*self._cameras, self._collision):
            with contextlib.suppress(RuntimeError):
                sensor.stop()

    def _touched(self, event: Any) -> None:
        impulse = event.normal_impulse
        size = math.sqrt(impulse.x**2 + impulse.y**2 + impulse.z**2)
        self._collisions.put((int(event.frame), int(event.other_actor.id), str(event.other_actor.type_id), size))


def _keeper(images: queue.SimpleQueue[tuple[int, Any]], index: int) -> Any:
    return lambda image: images.put((index, image))


def rgb_of(images: list[Any]) -> NDArray[np.uint8]:
    """(v, h, w, 3) RGB of `carla.Image`s of one size."""
    height, width = images[0].height, images[0].width
    result = np.empty((len(images), height * width, 3), np.uint8)
    for view, image in zip(result, images, strict=True):
        _reorder(np.frombuffer(image.raw_data, np.uint8).reshape(-1, 4), view)
    return result.reshape(len(images), height, width, 3)


@njit(cache=True, error_model="numpy", nogil=True)
def _reorder(bgra: Any, rgb: Any) -> None:  # pragma: no cover - compiled; ten times as fast as numpy's strided copy
    for k in range(len(rgb)):
        rgb[k, 0] = bgra[k, 2]
        rgb[k, 1] = bgra[k, 1]
        rgb[k, 2] = bgra[k, 0]
