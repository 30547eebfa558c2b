"""CARLA as a world, through `carla.Client`: the embedded server or a CARLA 0.9.16 server, on one code path."""

from __future__ import annotations

import atexit
import contextlib
import math
import time
import weakref

import carla

from drivesim.datatypes import CameraRig, Contact, Control, Frame, Scenario
from drivesim.worlds.carla_frames import pose_from_transform
from drivesim.worlds.carla_sensors import FirstPictureLostError
from drivesim.worlds.carla_stage import Stage
from drivesim.worlds.ego_motion import EgoMotion
from drivesim.worlds.errors import ScenarioError, WorldError
from drivesim.worlds.routes import RoutePlan, plan_route
from drivesim.worlds.variation import Variation, vary

LATE_CONTACTS_S = 0.1
SUBSCRIPTION_PAUSES_S = (0.05, 0.5, 3.0)


class CarlaWorld:
    """See `drivesim.interfaces.World`. One episode at a time; `close` leaves the server tidy."""

    route: RoutePlan
    variation: Variation

    def __init__(
        self, host: str = "127.0.0.1", port: int = 2000, *, rig: CameraRig | None = None,
        camera_period_s: float = 0.25, timeout_s: float = 60.0, draws_every_tick: bool = False,
    ) -> None:  # fmt: skip
        """Connect.

        Args:
            host, port: of the server.
            rig: cameras on the ego; None has none.
            camera_period_s: time between pictures; 0 is every tick.
            draws_every_tick: for a server whose `sensor_tick` drifts, as Unreal's does: it draws at every tick and
                we keep every `camera_period_s`.
            timeout_s: of any call; loading a big town on a real CARLA takes long.

        Raises:
            WorldError: nobody answers there.
        """
        self.rig, self.camera_period_s = rig, camera_period_s
        self._draws_every_tick = draws_every_tick
        self._client = carla.Client(host, port)
        self._client.set_timeout(timeout_s)
        try:
            self._client.get_server_version()
        except RuntimeError as error:
            raise WorldError(f"no CARLA server answers at {host}:{port} ({error})") from error
        self._stage: Stage | None = None
        _open_worlds.add(self)

    def reset(self, scenario: Scenario, seed: int) -> Frame:
        """Load the scenario's town afresh, build the scenario and return its first tick.

        Raises:
            ScenarioError, RouteError, ConfigError: it cannot be set up.
            WorldError: the server failed.
        """
        self.route, self.variation = plan_route(scenario), vary(scenario, seed)
        self._scenario, self._seed = scenario, seed
        for pause_s in SUBSCRIPTION_PAUSES_S:
            self._end_episode()
            try:
                return self._set_up(pause_s)
            except FirstPictureLostError as error:
                lost = error
            except ScenarioError:
                raise
            except RuntimeError as error:
                raise WorldError(f"setting up {scenario.id} failed: {error}") from error
        raise WorldError(f"setting up {scenario.id} failed {len(SUBSCRIPTION_PAUSES_S)} times: {lost}")

    def _set_up(self, pause_s: float) -> Frame:
        """One attempt; a second one gives the same episode, because the town is loaded afresh."""
        self._stage = Stage(self._client, self._scenario, self._seed, self.route, self.variation)
        self._stage.build(self.rig, self.camera_period_s, every_tick=self._draws_every_tick)
        self._motion, self._near_s_m = EgoMotion(), self.variation.start_s_m
        self._first_frame = self._stage.start(pause_s)
        self._frame = self._observe(self._first_frame)
        return self._frame

    def step(self, control: Control) -> Frame:
        """Advance by the scenario's dt under `control`.

        Raises:
            WorldError: the server failed.
        """
        if self._stage is None:
            raise RuntimeError("reset the world before stepping it")
        control.validate()
        try:
            frame_id = self._stage.advance(self._frame, control)
            self._frame = self._observe(frame_id)
        except RuntimeError as error:
            raise WorldError(f"the server failed at {self._frame.time_us * 1e-6:.2f} s: {error}") from error
        return self._frame

    def late_contacts(self) -> list[tuple[int, int, str, float]]:
        """Contacts that were still on their way when the last tick was answered: time_us, id, kind, impulse."""
        if self._stage is None:
            return []
        time.sleep(LATE_CONTACTS_S)
        return [(c.time_us, c.other_id, c.kind, c.impulse) for c in self._contacts()]

    def close(self) -> None:
        """Destroy all that was spawned and leave the server in asynchronous mode."""
        self._end_episode()

    def _end_episode(self) -> None:
        stage, self._stage = self._stage, None
        if stage is not None:
            stage.clear()

    @property
    def _dt_us(self) -> int:
        return round(self._scenario.dt_s * 1e6)

    def _observe(self, frame_id: int) -> Frame:
        assert self._stage is not None and self._stage.sensors is not None
        time_us = (frame_id - self._first_frame) * self._dt_us
        snapshot = self._stage.world.get_snapshot()
        ego_now = snapshot.find(self._stage.ego.id)
        if ego_now is None:
            raise WorldError("the ego vanished from the server")
        velocity = ego_now.get_velocity()
        center = pose_from_transform(ego_now.get_transform())
        yaw = center.yaw_rad
        forward = velocity.x * math.cos(yaw) - velocity.y * math.sin(yaw)
        ego = self._motion.state(time_us, center, (forward * math.cos(yaw), forward * math.sin(yaw)))
        self._near_s_m, _ = self.route.project(ego.x_m, ego.y_m, self._near_s_m)
        return Frame(
            time_us, self._stage.sensors.pictures(frame_id), ego, self._stage.actors(snapshot), self._stage.lights(),
            self.route.ahead(ego, self._near_s_m), contacts=tuple(self._contacts()),
        )  # fmt: skip

    def _contacts(self) -> list[Contact]:
        assert self._stage is not None
        return [
            Contact(max(frame_id - self._first_frame, 0) * self._dt_us, number, kind, impulse)
            for frame_id, number, kind, impulse in self._stage.contacts()
            if frame_id >= self._first_frame
        ]


_open_worlds: weakref.WeakSet[CarlaWorld] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """The client aborts the interpreter at exit when a sensor still listens."""
    for world in list(_open_worlds):
        with contextlib.suppress(Exception):
            world.close()
