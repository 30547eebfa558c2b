"""The columns of a drive log, and how a frame becomes rows and rows become a frame.

Every column is one zarr array whose first axis is the tick. Ragged things (actors, lights, the route,
contacts) are padded to a fixed size; `counts` says how many rows are real. Rows beyond the count are zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drivesim.datatypes import (
    ActorStates,
    Camera,
    CameraRig,
    Contact,
    Control,
    EgoState,
    Frame,
    LightStates,
    RouteAhead,
)
from drivesim.geometry import Pose

FORMAT = "drivesim-log"
SCHEMA_VERSION = 1
MODES = ("expert", "risky", "noise", "planner")  # `mode` column: who drove
MODE_EXPERT, MODE_RISKY, MODE_NOISE, MODE_PLANNER = range(4)
CONTACT_KINDS = ("vehicle", "walker", "static")
EGO_FIELDS = (
    "x_m", "y_m", "z_m", "roll_rad", "pitch_rad", "yaw_rad", "speed_mps", "acceleration_mps2", "yaw_rate_radps",
    "length_m", "width_m", "rear_axle_to_center_m",
)  # fmt: skip
PRESENT_IMAGES, PRESENT_CONTROL, PRESENT_ACTION, PRESENT_EXPERT = range(4)
COUNT_ACTORS, COUNT_ACTORS_SEEN, COUNT_LIGHTS, COUNT_ROUTE, COUNT_CONTACTS = range(5)
STATE_GROUP = "state"  # group of the embedded world's own arrays, one per field

Row = dict[str, Any]


class LogError(ValueError):
    """A log that cannot be used; the message is one line and says what to do."""


@dataclass(frozen=True)
class LogLimits:
    """Padded sizes; what does not fit is left out, farthest from the ego first."""

    actors: int = 128
    lights: int = 64
    route_points: int = 64
    contacts: int = 8


@dataclass(frozen=True)
class Column:
    """One array of the log: what a tick of it looks like."""

    dtype: str
    shape: tuple[int, ...] = ()


def columns(limits: LogLimits) -> dict[str, Column]:
    """All columns but the images and the world's own state, in the order in which they are written."""
    a, q, r, c = limits.actors, limits.lights, limits.route_points, limits.contacts
    return {
        "ego": Column("f8", (len(EGO_FIELDS),)),
        "control": Column("f8", (3,)),  # steer (left positive), throttle, brake
        "action": Column("f8", (2,)),  # realised from this tick to the next: acceleration_mps2, curvature_1pm
        "expert": Column("f8", (2,)),  # what the safe expert would have done from here
        "mode": Column("u1"),
        "present": Column("u1", (4,)),  # images, control, action, expert: 1 where the tick has one
        "counts": Column("i4", (5,)),  # actors, actors seen, lights, route points, contacts
        "actor_id": Column("i8", (a,)),
        "actor_kind": Column("u1", (a,)),
        "actor_pose": Column("f8", (a, 4)),
        "actor_size": Column("f8", (a, 3)),
        "actor_velocity": Column("f8", (a, 2)),
        "light_state": Column("u1", (q,)),
        "light_stop": Column("f8", (q, 5)),  # x, y, z, yaw, half width of the stop line
        "route": Column("f8", (r, 3)),  # x, y in the ego frame, speed limit
        "route_remaining_m": Column("f8"),
        "contact": Column("i8", (c, 3)),  # time_us, other_id, kind
        "contact_impulse": Column("f8", (c,)),
    }


def _nearest(xy_m: NDArray[np.float64], ego: EgoState, keep: int) -> NDArray[np.int64]:
    """Rows to keep, in their order, when there are more than fit."""
    if len(xy_m) <= keep:
        return np.arange(len(xy_m))
    distance = np.hypot(xy_m[:, 0] - ego.x_m, xy_m[:, 1] - ego.y_m)
    return np.sort(np.argsort(distance, kind="stable")[:keep])


def rows_of_frame(frame: Frame, limits: LogLimits) -> Row:
    """Column name -> value of this tick, not yet padded."""
    actors, lights, route = frame.actors, frame.lights, frame.route
    near = _nearest(actors.pose[:, :2], frame.ego, limits.actors)
    lamps = _nearest(lights.stop_pose[:, :2], frame.ego, limits.lights)
    points = min(len(route.points_m), limits.route_points)
    contacts = frame.contacts[: limits.contacts]
    control = frame.control or Control(0.0, 0.0, 0.0)
    return {
        "ego": [getattr(frame.ego, name) for name in EGO_FIELDS],
        "control": [control.steer, control.throttle, control.brake],
        "counts": [len(near), len(actors.ids), len(lamps), points, len(contacts)],
        "actor_id": actors.ids[near],
        "actor_kind": actors.kinds[near],
        "actor_pose": actors.pose[near],
        "actor_size": actors.size_m[near],
        "actor_velocity": actors.velocity_mps[near],
        "light_state": lights.states[lamps],
        "light_stop": np.column_stack([lights.stop_pose[lamps], lights.half_width_m[lamps]]),
        "route": np.column_stack([route.points_m[:points], route.speed_limit_mps[:points]]),
        "route_remaining_m": route.remaining_m,
        "contact": [[c.time_us, c.other_id, CONTACT_KINDS.index(c.kind)] for c in contacts],
        "contact_impulse": [c.impulse for c in contacts],
    }


def frame_of_rows(time_us: int, rows: Mapping[str, NDArray[Any]], images: NDArray[np.uint8] | None) -> Frame:
    """Inverse of `rows_of_frame`; `rows` holds one tick of each column, padded."""
    actors, _, lights, points, contacts = (int(n) for n in rows["counts"])
    ego = EgoState(time_us, *(float(value) for value in rows["ego"]))
    control = Control(*(float(value) for value in rows["control"])) if rows["present"][PRESENT_CONTROL] else None
    stops, route = rows["light_stop"][:lights], rows["route"][:points]
    return Frame(
        time_us=time_us,
        images=images,
        ego=ego,
        actors=ActorStates(
            rows["actor_id"][:actors].copy(), rows["actor_kind"][:actors].copy(), rows["actor_pose"][:actors].copy(),
            rows["actor_size"][:actors].copy(), rows["actor_velocity"][:actors].copy(),
        ),
        lights=LightStates(rows["light_state"][:lights].copy(), stops[:, :4].copy(), stops[:, 4].copy()),
        route=RouteAhead(route[:, :2].copy(), route[:, 2].copy(), float(rows["route_remaining_m"])),
        control=control,
        contacts=tuple(
            Contact(int(time), int(other), CONTACT_KINDS[int(kind)], float(impulse))
            for (time, other, kind), impulse in zip(
                rows["contact"][:contacts], rows["contact_impulse"][:contacts], strict=True
            )
        ),
    )  # fmt: skip


def rig_to_dict(rig: CameraRig) -> dict[str, Any]:
    """A rig as JSON; floats survive exactly."""
    return {
        "id": rig.id,
        "cameras": [
            {
                "name": camera.name,
                "width_px": camera.width_px,
                "height_px": camera.height_px,
                "intrinsics": camera.intrinsics.tolist(),
                "rotation": camera.ego_from_camera.rotation.tolist(),
                "translation_m": camera.ego_from_camera.translation_m.tolist(),
            }
            for camera in rig.cameras
        ],
    }


def rig_from_dict(data: Mapping[str, Any]) -> CameraRig:
    """Inverse of `rig_to_dict`."""
    cameras = tuple(
        Camera(
            camera["name"],
            np.array(camera["intrinsics"], dtype=np.float64),
            Pose(np.array(camera["rotation"], dtype=np.float64), np.array(camera["translation_m"], dtype=np.float64)),
            int(camera["width_px"]),
            int(camera["height_px"]),
        )
        for camera in data["cameras"]
    )
    return CameraRig(str(data["id"]), cameras)
