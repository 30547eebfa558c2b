"""One episode on a CARLA server: what was spawned, and how it is moved and read."""

from __future__ import annotations

import contextlib
import math
import socket
from dataclasses import dataclass
from typing import Any

import carla
import numpy as np
from numpy.typing import NDArray

from drivesim.datatypes import (
    ACTOR_VEHICLE,
    ACTOR_WALKER,
    ActorSpec,
    ActorStates,
    CameraRig,
    Control,
    Frame,
    LightStates,
    Scenario,
)
from drivesim.town.catalogue import MODELS
from drivesim.town.roads import LANE_SIDEWALK, RoadNetwork
from drivesim.town.towns import canonical_name
from drivesim.town.weather import PARAMETERS
from drivesim.worlds.carla_frames import control_to_carla, mirrored, transform_from_planar, vector_to_carla
from drivesim.worlds.carla_sensors import SensorSet
from drivesim.worlds.cast import Cast, in_the_way
from drivesim.worlds.ego_motion import EGO_AXLE_TO_CENTER_M, EGO_BLUEPRINT
from drivesim.worlds.errors import ScenarioError
from drivesim.worlds.routes import RoutePlan, lane_map
from drivesim.worlds.town_world import stop_lines
from drivesim.worlds.variation import Variation, generator

Array = NDArray[np.float64]

WARM_UP_TICKS = 4  # cars settle on their wheels, the Traffic Manager learns of its vehicles
SPAWN_LIFT_M = 0.3  # CARLA refuses a car whose box touches the road
TRAFFIC_RADIUS_M = 160.0
TRAFFIC_BASE_TYPES = ("car", "van")
PORT_ATTEMPTS = 8


@dataclass(frozen=True)
class Known:
    """What never changes of an actor: asked once."""

    number: int  # our id: order of spawning, the same in every run
    kind: int
    offset_m: Array  # (3,) from the actor's origin to the middle of its box's floor, actor frame (ours)
    size_m: Array  # (3,)


class Stage:
    """One episode on the server: what was spawned, and how it is read and moved."""

    def __init__(self, client: Any, scenario: Scenario, seed: int, route: RoutePlan, variation: Variation) -> None:
        self._client, self._scenario, self._seed = client, scenario, seed
        self._route, self._variation = route, variation
        self._lanes = lane_map(scenario.town)
        self._rng = generator(scenario, seed, "traffic")
        strollers = _strollers(scenario, route, self._lanes.network, self._rng)
        self._cast = Cast((*variation.actors, *strollers), route, self._lanes)
        self._known: dict[int, Known] = {}
        self._spawned: list[int] = []
        self._scripted: list[int] = []  # carla ids of the cast, -1 once gone
        self._manager: Any = None
        self.sensors: SensorSet | None = None
        self._shown: dict[int, int] = {}
        self.world: Any = None
        self.ego: Any = None

    # ------------------------------------------------------------------ setting up
    def build(self, rig: CameraRig | None, camera_period_s: float, *, every_tick: bool) -> None:
        """Load the town and spawn everybody. Synchronous mode comes first: else the lights' phase is by chance."""
        _set_sync(self._client.get_world(), self._scenario.dt_s)
        self.world = self._client.load_world(canonical_name(self._scenario.town), False)
        _set_sync(self.world, self._scenario.dt_s)
        weather = dict(zip(PARAMETERS, (float(value) for value in self._variation.weather), strict=True))
        self.world.set_weather(carla.WeatherParameters(**weather))
        self._library = self.world.get_blueprint_library()
        self._spawn_ego()
        for index in range(len(self._cast.scripts)):
            self._spawn_scripted(index)
        if self._scenario.traffic_vehicles > 0:
            self._spawn_traffic()
        self._find_lights()
        self._show_lights(0.0)
        dt_s = self._scenario.dt_s
        self.sensors = SensorSet(self.world, self.ego, rig, camera_period_s, dt_s, every_tick=every_tick)

    def start(self, pause_s: float) -> int:
        """Let everything settle, set the ego rolling; the frame number of the first tick.

        Args:
            pause_s: wall time for the cameras' subscriptions.
        """
        self.ego.apply_control(carla.VehicleControl(brake=1.0))
        for _ in range(WARM_UP_TICKS):
            self.world.tick()
        yaw = math.radians(self.ego.get_transform().rotation.yaw)
        speed = self._variation.start_speed_mps
        self.ego.apply_control(carla.VehicleControl())
        self.ego.set_target_velocity(carla.Vector3D(speed * math.cos(yaw), speed * math.sin(yaw), 0.0))
        assert self.sensors is not None
        self.sensors.listen(pause_s)
        return int(self.world.tick())

    def _spawn_ego(self) -> None:
        place = self._route.place(self._variation.start_s_m)
        x = place.x_m + EGO_AXLE_TO_CENTER_M * math.cos(place.yaw_rad)
        y = place.y_m + EGO_AXLE_TO_CENTER_M * math.sin(place.yaw_rad)
        blueprint = self._library.find(EGO_BLUEPRINT)
        blueprint.set_attribute("role_name", "hero")
        at = transform_from_planar(x, y, place.z_m + SPAWN_LIFT_M, place.yaw_rad)
        self.ego = self.world.try_spawn_actor(blueprint, at)
        if self.ego is None:
            raise ScenarioError(f"no room for the ego at the start of the route ({x:.1f}, {y:.1f})")
        self._spawned.append(self.ego.id)

    def _spawn_scripted(self, index: int) -> None:
        spec, at = self._cast.scripts[index].spec, self._cast.placement(index)
        x, y, yaw = (float(value) for value in at.pose)
        lift = 1.0 if spec.blueprint.startswith("walker") else SPAWN_LIFT_M
        blueprint = self._library.find(spec.blueprint)
        if blueprint.has_attribute("is_invincible"):
            blueprint.set_attribute("is_invincible", "false")
        actor = self.world.try_spawn_actor(blueprint, transform_from_planar(x, y, at.z_m + lift, yaw))
        if actor is None:
            if spec.behavior == "stroll":  # a passer-by without room stays at home
                self._scripted.append(-1)
                return
            raise ScenarioError(
                f"no room for scripted actor {index} ({spec.behavior}) at route_s_m = {spec.route_s_m:.1f}, "
                f"lateral_m = {spec.lateral_m:.1f}: it stands in another actor or in scenery"
            )
        actor.set_simulate_physics(False)
        self._scripted.append(actor.id)
        self._spawned.append(actor.id)
        self._know(actor, 1 + index)
        self._client.apply_batch(self._moves(index))

    def _spawn_traffic(self) -> None:
        self._manager = _traffic_manager(self._client)
        self._manager.set_synchronous_mode(True)
        self._manager.set_random_device_seed(self._variation.traffic_seed % (2**31))
        self._manager.set_global_distance_to_leading_vehicle(2.5)
        names = sorted(model.blueprint for model in MODELS if model.base_type in TRAFFIC_BASE_TYPES)
        blueprints = [self._library.find(name) for name in names if self._library.filter(name)]
        wanted, number = self._scenario.traffic_vehicles, 1000
        for spot in self._traffic_spots():
            if wanted == 0:
                break
            blueprint = blueprints[int(self._rng.integers(len(blueprints)))]
            if blueprint.has_attribute("color"):
                colors = blueprint.get_attribute("color").recommended_values
                blueprint.set_attribute("color", colors[int(self._rng.integers(len(colors)))])
            slower = float(self._rng.uniform(-5.0, 30.0))
            actor = self.world.try_spawn_actor(blueprint, spot)
            if actor is None:
                continue
            number, wanted = number + 1, wanted - 1
            self._spawned.append(actor.id)
            self._know(actor, number)
            actor.set_autopilot(True, self._manager.get_port())
            self._manager.vehicle_percentage_speed_difference(actor, slower)

    def _traffic_spots(self) -> list[Any]:
        """Spawn places around the route, shuffled; none right ahead of the ego or on a scripted actor."""
        n = self._lanes.network
        middle = self._route.place(0.5 * self._route.length_m)
        xy = mirrored(n.spawn_xyz_m)[:, :2]
        near = np.hypot(xy[:, 0] - middle.x_m, xy[:, 1] - middle.y_m) < TRAFFIC_RADIUS_M + 0.5 * self._route.length_m
        taken = [self._cast.placement(k).pose[:2] for k in range(len(self._cast.scripts))]
        spots = []
        for row in self._rng.permutation(np.flatnonzero(near)):
            x, y = float(xy[row, 0]), float(xy[row, 1])
            if in_the_way(self._route, self._variation.start_s_m, x, y):
                continue
            if any(math.hypot(x - place[0], y - place[1]) < 10.0 for place in taken):
                continue
            z = float(n.spawn_xyz_m[row, 2]) + SPAWN_LIFT_M
            spots.append(transform_from_planar(x, y, z, -float(n.spawn_yaw_rad[row])))
        return spots

    def _know(self, actor: Any, number: int) -> None:
        box = actor.bounding_box
        walker = actor.type_id.startswith("walker")
        offset = mirrored(np.array([box.location.x, box.location.y, box.location.z - box.extent.z]))
        size = 2.0 * np.array([box.extent.x, box.extent.y, box.extent.z])
        self._known[actor.id] = Known(number, ACTOR_WALKER if walker else ACTOR_VEHICLE, offset, size)

    # ------------------------------------------------------------------ each tick
    def contacts(self) -> list[tuple[int, int, str, float]]:
        """(frame, our id or -1, kind, impulse) of the contacts that arrived."""
        found = []
        for frame_id, actor_id, type_id, impulse in self.sensors.drain_contacts() if self.sensors is not None else ():
            family = type_id.partition(".")[0]
            kind = family if family in ("vehicle", "walker") else "static"
            known = self._known.get(actor_id)
            found.append((frame_id, known.number if known is not None else -1, kind, impulse))
        return found

    def advance(self, frame: Frame, control: Control) -> int:
        """Move the script on, send everything in one batch, tick; the new frame's number."""
        numbers = [1 + index if actor_id >= 0 else -2 for index, actor_id in enumerate(self._scripted)]
        before = self._cast.states
        self._cast.advance(frame, numbers, self._scenario.dt_s)
        commands = [carla.command.ApplyVehicleControl(self.ego.id, control_to_carla(control))]
        for index, (old, new) in enumerate(zip(before, self._cast.states, strict=True)):
            if self._scripted[index] >= 0 and (old != new or new.speed_mps or new.lateral_mps):
                commands += self._moves(index)
        self._client.apply_batch(commands)
        self._show_lights(frame.time_us * 1e-6)
        return int(self.world.tick())

    def _moves(self, index: int) -> list[Any]:
        actor_id = self._scripted[index]
        if self._cast.states[index].gone:
            self._scripted[index] = -1
            return [carla.command.DestroyActor(actor_id)]
        at = self._cast.placement(index)
        offset = self._known[actor_id].offset_m
        x, y, yaw = (float(value) for value in at.pose)
        c, s = math.cos(yaw), math.sin(yaw)
        where = transform_from_planar(
            x - c * offset[0] + s * offset[1], y - s * offset[0] - c * offset[1], at.z_m - float(offset[2]), yaw
        )
        velocity = vector_to_carla(np.array([at.velocity_mps[0], at.velocity_mps[1], 0.0]))
        return [carla.command.ApplyTransform(actor_id, where), carla.command.ApplyTargetVelocity(actor_id, velocity)]

    def actors(self, snapshot: Any) -> ActorStates:
        """Everybody but the ego, in the order of our ids."""
        scripted = {actor_id: index for index, actor_id in enumerate(self._scripted) if actor_id >= 0}
        rows: list[tuple[float, ...]] = []
        known: list[Known] = []
        for actor_id, static in self._known.items():
            now = snapshot.find(actor_id)
            if now is None:
                continue
            transform = now.get_transform()
            location, yaw = transform.location, -math.radians(transform.rotation.yaw)
            if actor_id in scripted:
                vx, vy = (float(value) for value in self._cast.placement(scripted[actor_id]).velocity_mps)
            else:
                velocity = now.get_velocity()
                vx, vy = velocity.x, -velocity.y
            c, s = math.cos(yaw), math.sin(yaw)
            dx, dy, dz = static.offset_m
            rows.append((location.x + c * dx - s * dy, -location.y + s * dx + c * dy, location.z + dz, yaw, vx, vy))
            known.append(static)
        if not rows:
            return ActorStates.empty()
        table = np.array(rows)
        return ActorStates(
            np.array([k.number for k in known], np.int64), np.array([k.kind for k in known], np.uint8),
            table[:, :4].copy(), np.stack([k.size_m for k in known]), table[:, 4:].copy(),
        )  # fmt: skip

    # ------------------------------------------------------------------ lights
    def _find_lights(self) -> None:
        rows = {str(signal): row for row, signal in enumerate(self._lanes.network.light_signal_id)}
        self._light_actors: dict[int, Any] = {}
        for light in self.world.get_actors().filter("traffic.traffic_light*"):
            row = rows.get(str(light.get_opendrive_id()))
            if row is not None:
                self._light_actors[row] = light
        light_of_stop, pose, half_width = stop_lines(self._lanes.network)
        here = np.array([int(row) in self._light_actors for row in light_of_stop], dtype=bool)
        self._stop_light, self._stop_pose, self._stop_half_width = light_of_stop[here], pose[here], half_width[here]
        self._light_rows = sorted({int(row) for row in self._stop_light})

    def lights(self) -> LightStates:
        """Stop lines with what their lights show."""
        shown = {row: int(self._light_actors[row].state) for row in self._light_rows}
        states = np.array([shown[int(row)] for row in self._stop_light], np.uint8)
        return LightStates(np.minimum(states, 3), self._stop_pose, self._stop_half_width)

    def _show_lights(self, time_s: float) -> None:
        for row, value in self._cast.light_states(time_s).items():
            light = self._light_actors.get(row)
            if light is None or self._shown.get(row) == value:
                continue
            light.set_state(carla.TrafficLightState.values[value])
            if row not in self._shown:
                light.freeze(True)
            self._shown[row] = value

    # ------------------------------------------------------------------ leaving
    def clear(self) -> None:
        """Destroy all, stop the Traffic Manager, leave asynchronous mode; errors of a dead server are swallowed."""
        sensors, self.sensors = self.sensors, None
        if sensors is not None:
            sensors.stop()
        doomed = (sensors.actor_ids if sensors is not None else []) + self._spawned[::-1]
        self._spawned = []
        with contextlib.suppress(RuntimeError):
            # first, and while its actors live and it waits for the next tick: its thread aborts on a missing actor
            if self._manager is not None:
                self._manager.shut_down()
            if doomed:
                self._client.apply_batch_sync([carla.command.DestroyActor(actor_id) for actor_id in doomed], False)
            if self.world is not None:
                settings = self.world.get_settings()
                settings.synchronous_mode, settings.fixed_delta_seconds = False, None
                self.world.apply_settings(settings)
        self._manager = None


def _set_sync(world: Any, dt_s: float) -> None:
    settings = world.get_settings()
    settings.synchronous_mode, settings.fixed_delta_seconds = True, dt_s
    world.apply_settings(settings)


def _traffic_manager(client: Any) -> Any:
    """The client's own, at a free port; the port that was free a moment ago may be somebody's by now."""
    attempts = PORT_ATTEMPTS
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        try:
            return client.get_trafficmanager(port)
        except RuntimeError as error:
            attempts -= 1
            if "bind error" not in str(error) or attempts == 0:
                raise


def _strollers(scenario: Scenario, route: RoutePlan, network: RoadNetwork, rng: np.random.Generator) -> list[ActorSpec]:
    """People on the sidewalk to the right of the route; they walk along it, half of them towards the ego."""
    lanes = np.flatnonzero(network.lane_kind == LANE_SIDEWALK)
    if scenario.traffic_walkers == 0 or len(lanes) == 0:
        return []
    beside = mirrored(network.point_xyz_m[np.isin(network.point_lane, lanes)])[:, :2]
    found: list[ActorSpec] = []
    for _ in range(4 * scenario.traffic_walkers):
        if len(found) == scenario.traffic_walkers:
            break
        s = float(rng.uniform(10.0, route.length_m))
        place = route.place(s)
        delta = beside - np.array([place.x_m, place.y_m])
        along = delta[:, 0] * math.cos(place.yaw_rad) + delta[:, 1] * math.sin(place.yaw_rad)
        across = -delta[:, 0] * math.sin(place.yaw_rad) + delta[:, 1] * math.cos(place.yaw_rad)
        right = across[(np.abs(along) < 1.0) & (across < -2.0) & (across > -9.0)]
        walker = f"walker.pedestrian.{int(rng.integers(15, 48)):04d}"
        turned, speed = float(rng.choice([0.0, 180.0])), float(rng.uniform(1.0, 1.7))
        if len(right) and all(abs(s - other.route_s_m) > 2.0 for other in found):
            found.append(ActorSpec("stroll", walker, s, float(right.max()), turned, {"speed_mps": speed}))
    return found
