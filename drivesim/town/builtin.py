"""Drivetown, the town that needs no download: written as OpenDRIVE with `scenariogeneration`.

A ring road around a cross. Its places (OpenDRIVE's axes: x east, y north): a signalled crossing in the
middle, a signalled T in the south, a stop sign in the north, a yield sign in the east where the
four-lane avenue ends, a roundabout in the west, a hill in the north-west, crosswalks at the lights.
The reference line of a connecting road is the LEFT border of the lane it carries.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree

from drivesim.town.reference_lines import Piece, Pose, fillet, to_right, turned, walk

LANE_M, SHOULDER_M, SIDEWALK_M = 3.5, 0.6, 2.6
HALF_X_M, HALF_Y_M = 160.0, 140.0
JUNCTION_M = 14.0  # from the middle of a junction to where its roads begin
CORNER_M = 30.0  # radius of the ring road's corners
RING_M, RING_LEG_M = 18.0, 34.0  # roundabout: reference radius; distance at which its legs begin
RING_GAP_RAD = math.radians(35.0)  # half the arc that a leg's junction takes out of the ring
HILL_M = 6.0
FIRST_CONNECTION = 100
CENTRE, NORTH, EAST, SOUTH = 10, 11, 12, 13  # junctions; the roundabout has one for each leg:
RING_JUNCTIONS = {"north": 20, "south": 21, "east": 22}
LIGHT, STOP, YIELD = "1000001", "206", "205"


@dataclass
class Street:
    """An ordinary road; `lanes` (left, right) driving lanes. Its ends say which junction they meet."""

    id: int
    start: Pose
    pieces: list[Piece]
    lanes: tuple[int, int]
    speed_kmh: int
    junctions: tuple[int, int]  # at its start, at its end
    road: Any = None

    @property
    def end(self) -> Pose:
        """Pose of the reference line where the road ends."""
        return walk(self.start, self.pieces)

    @property
    def length_m(self) -> float:
        """Length of the reference line."""
        return sum(length for length, _ in self.pieces)


@dataclass(frozen=True)
class Arm:
    """One end of a street at a junction, seen from the junction: `at_end` if the street ends there."""

    street: Street
    at_end: bool

    def inbound(self, order: int) -> tuple[Pose, int]:
        """Left border and id of the order-th lane (0 innermost) that comes into the junction."""
        x, y, h = self.street.end if self.at_end else turned(self.street.start)
        return to_right((x, y, h), order * LANE_M), (-1 - order if self.at_end else 1 + order)

    def outbound(self, order: int) -> tuple[Pose, int]:
        """Left border and id of the order-th lane that leaves the junction."""
        x, y, h = turned(self.street.end) if self.at_end else self.street.start
        return to_right((x, y, h), order * LANE_M), (1 + order if self.at_end else -1 - order)

    @property
    def lanes_in(self) -> int:
        """How many lanes come in."""
        return self.street.lanes[1 if self.at_end else 0]


@dataclass
class Town:
    """What has been built so far."""

    roads: list[Any] = field(default_factory=list)
    junctions: dict[int, Any] = field(default_factory=dict)
    controllers: dict[int, list[str]] = field(default_factory=dict)  # junction -> signals, one controller each
    signals: list[tuple[int, str, dict[str, str], int]] = field(default_factory=list)  # road, tag, attributes, lane
    next_connection: int = FIRST_CONNECTION


@functools.cache  # the library numbers objects per process: a second town would get other numbers
def drivetown_xodr() -> str:
    """The OpenDRIVE text of Drivetown; the same on every machine.

    Raises:
        ModuleNotFoundError: scenariogeneration is not installed.
    """
    from scenariogeneration import xodr

    town, streets = Town(), _streets()
    for street in streets.values():
        street.road = _street_road(street)
        town.roads.append(street.road)
    _add_hill(streets["north-west"])
    _crossings(town, streets)
    _roundabout(town, streets)
    drive = xodr.OpenDrive("Drivetown")
    for road in town.roads:
        drive.add_road(road)
    for junction in town.junctions.values():
        drive.add_junction(junction)
    root = drive.get_element()
    _write_carla_parts(root, town)
    header = root.find("header")
    header.set("date", "2026-01-01")  # else the text would differ from day to day
    ElementTree.SubElement(header, "geoReference").text = "+proj=tmerc +lat_0=0 +lon_0=0 +k=1 +x_0=0 +y_0=0"
    return ElementTree.tostring(root, encoding="unicode")


def _streets() -> dict[str, Street]:
    x, y, g = HALF_X_M, HALF_Y_M, JUNCTION_M
    leg = RING_LEG_M
    east, north, west, south = 0.0, math.pi / 2, math.pi, -math.pi / 2
    ring = RING_JUNCTIONS

    def corner(first_m: float, second_m: float) -> list[Piece]:
        return [(first_m - CORNER_M, 0.0), (CORNER_M * math.pi / 2, 1.0 / CORNER_M), (second_m - CORNER_M, 0.0)]

    return {
        "avenue": Street(1, (g, 0, east), [(x - 2 * g, 0.0)], (2, 2), 50, (CENTRE, EAST)),
        "west": Street(2, (-g, 0, west), [(x - g - leg, 0.0)], (1, 1), 40, (CENTRE, ring["east"])),
        "north": Street(3, (0, g, north), [(y - 2 * g, 0.0)], (1, 1), 30, (CENTRE, NORTH)),
        "south": Street(4, (0, -g, south), [(y - 2 * g, 0.0)], (1, 1), 30, (CENTRE, SOUTH)),
        "north-east": Street(5, (x, g, north), corner(y - g, x - g), (1, 1), 50, (EAST, NORTH)),
        "north-west": Street(6, (-g, y, west), corner(x - g, y - leg), (1, 1), 50, (NORTH, ring["north"])),
        "south-west": Street(7, (-x, -leg, south), corner(y - leg, x - g), (1, 1), 50, (ring["south"], SOUTH)),
        "south-east": Street(8, (g, -y, east), corner(x - g, y - g), (1, 1), 50, (SOUTH, EAST)),
    }


def _crossings(town: Town, streets: dict[str, Street]) -> None:
    """The four plain junctions; arms are listed counter-clockwise from the east, None where there is none."""
    at_start = {name: Arm(street, at_end=False) for name, street in streets.items()}
    at_end = {name: Arm(street, at_end=True) for name, street in streets.items()}
    centre: list[Arm | None] = [at_start["avenue"], at_start["north"], at_start["west"], at_start["south"]]
    _junction(town, CENTRE, centre, {arm.street.id: LIGHT for arm in centre if arm})
    north = [at_end["north-east"], None, at_start["north-west"], at_end["north"]]
    _junction(town, NORTH, north, {streets["north"].id: STOP})
    east = [None, at_start["north-east"], at_end["avenue"], at_end["south-east"]]
    _junction(town, EAST, east, {streets["avenue"].id: YIELD})
    south = [at_start["south-east"], at_end["south"], at_end["south-west"], None]
    _junction(town, SOUTH, south, {arm.street.id: LIGHT for arm in south if arm})


def _junction(town: Town, junction_id: int, arms: list[Arm | None], governed: dict[int, str]) -> None:
    """Connect every arm with every other; `governed` says by which kind of signal a street is held."""
    for place, arm in enumerate(arms):
        if arm is None:
            continue
        kind = governed.get(arm.street.id)
        signal = _add_signal(town, junction_id, arm, kind) if kind else None
        if kind == LIGHT:
            _add_crosswalk(arm)
        # counter-clockwise from this arm: the road to the right, straight on, to the left
        right, ahead, left = (arms[(place + turn) % 4] for turn in (1, 2, 3))
        inner, outer = 0, arm.lanes_in - 1
        for other, order, sidewalk in ((right, outer, True), (ahead, inner, right is None), (left, inner, False)):
            if other is not None:
                target = other.street.lanes[0 if other.at_end else 1] - 1 if other is right else 0
                source_pose, source_lane = arm.inbound(order)
                target_pose, target_lane = other.outbound(target)
                road = _connect(
                    town, junction_id, (arm.street, source_lane, source_pose), (other.street, target_lane, target_pose),
                    sidewalk=sidewalk,
                )  # fmt: skip
                if signal:
                    _refer(town, road, signal)


def _roundabout(town: Town, streets: dict[str, Street]) -> None:
    """One-way ring segments between the legs' junctions; who enters yields."""
    legs = {
        "east": (0.0, Arm(streets["west"], at_end=True)),
        "north": (math.pi / 2, Arm(streets["north-west"], at_end=True)),
        "south": (3 * math.pi / 2, Arm(streets["south-west"], at_end=False)),
    }
    order = ["east", "north", "south"]
    segments: dict[str, Street] = {}  # by the leg they leave
    for index, name in enumerate(order):
        following = order[(index + 1) % 3]
        begin = legs[name][0] + RING_GAP_RAD
        sweep = (legs[following][0] - legs[name][0]) % (2 * math.pi) - 2 * RING_GAP_RAD
        start = (-HALF_X_M + RING_M * math.cos(begin), RING_M * math.sin(begin), begin + math.pi / 2)
        ends = (RING_JUNCTIONS[name], RING_JUNCTIONS[following])
        segments[name] = Street(30 + index, start, [(RING_M * sweep, 1.0 / RING_M)], (0, 1), 30, ends)
        segments[name].road = _street_road(segments[name])
        town.roads.append(segments[name].road)
    for index, name in enumerate(order):
        junction_id, leg = RING_JUNCTIONS[name], legs[name][1]
        into, out_of = Arm(segments[order[index - 1]], at_end=True), Arm(segments[name], at_end=False)
        signal = _add_signal(town, junction_id, leg, YIELD)
        pairs = ((into, out_of, False), (into, leg, True), (leg, out_of, True))
        for source, target, sidewalk in pairs:
            (source_pose, source_lane), (target_pose, target_lane) = source.inbound(0), target.outbound(0)
            road = _connect(
                town, junction_id, (source.street, source_lane, source_pose),
                (target.street, target_lane, target_pose), sidewalk=sidewalk,
            )  # fmt: skip
            if source is leg:
                _refer(town, road, signal)


def _connect(
    town: Town, junction_id: int, source: tuple[Street, int, Pose], target: tuple[Street, int, Pose], *, sidewalk: bool
) -> Any:
    """Write the connecting road from one lane to another."""
    from scenariogeneration import xodr

    road_id, town.next_connection = town.next_connection, town.next_connection + 1
    lanes = _lanes(0, 1, sidewalk=sidewalk, connecting=True)
    right_lanes = lanes.lanesections[0].rightlanes
    for step, lane in enumerate(right_lanes):
        for (_, outer, _), link in ((source, "predecessor"), (target, "successor")):
            lane.add_link(link, outer + step * (1 if outer > 0 else -1))
    road = _road(road_id, source[2], fillet(source[2], target[2]), lanes, junction_id)
    point = {True: xodr.ContactPoint.start, False: xodr.ContactPoint.end}
    road.add_predecessor(xodr.ElementType.road, source[0].id, point[source[1] > 0])
    road.add_successor(xodr.ElementType.road, target[0].id, point[target[1] < 0])
    road.add_type(xodr.RoadType.town, 0, speed=min(source[0].speed_kmh, 30), speed_unit="km/h")
    junction = town.junctions.setdefault(junction_id, xodr.Junction(f"junction{junction_id}", junction_id))
    connection = xodr.Connection(source[0].id, road_id, xodr.ContactPoint.start)
    connection.add_lanelink(source[1], -1)
    junction.add_connection(connection)
    town.roads.append(road)
    return road


def _street_road(street: Street) -> Any:
    from scenariogeneration import xodr

    road = _road(street.id, street.start, street.pieces, _lanes(*street.lanes, sidewalk=True, connecting=False), -1)
    road.add_predecessor(xodr.ElementType.junction, street.junctions[0])
    road.add_successor(xodr.ElementType.junction, street.junctions[1])
    road.add_type(xodr.RoadType.town, 0, speed=street.speed_kmh, speed_unit="km/h")
    return road


def _road(road_id: int, start: Pose, pieces: list[Piece], lanes: Any, junction_id: int) -> Any:
    from scenariogeneration import xodr

    plan = xodr.PlanView(*start)
    for length, curvature in pieces:
        plan.add_geometry(xodr.Arc(curvature, length=length) if curvature else xodr.Line(length))
    plan.adjust_geometries()
    return xodr.Road(road_id, plan, lanes, road_type=junction_id, name=f"Road {road_id}")


def _lanes(left: int, right: int, *, sidewalk: bool, connecting: bool) -> Any:
    from scenariogeneration import xodr

    kinds, colors = xodr.RoadMarkType, xodr.RoadMarkColor

    def lane(kind: Any, width_m: float, mark: Any, color: Any = colors.white) -> Any:
        made = xodr.Lane(kind, a=width_m)
        made.add_roadmark(xodr.RoadMark(mark, width=0.15, color=color))
        return made

    divider = kinds.solid_solid if left > 1 else kinds.broken
    yellow = left > 0 and right > 0
    middle = (kinds.none if connecting else divider) if yellow or connecting else kinds.solid
    section = xodr.LaneSection(0, lane(xodr.LaneType.none, 0.0, middle, colors.yellow if yellow else colors.white))
    for count, add in ((left, section.add_left_lane), (right, section.add_right_lane)):
        for order in range(count):
            edge = kinds.solid if sidewalk else kinds.none
            add(lane(xodr.LaneType.driving, LANE_M, edge if order == count - 1 else kinds.broken))
        if count and sidewalk:
            add(lane(xodr.LaneType.shoulder, SHOULDER_M, kinds.curb))
            add(lane(xodr.LaneType.sidewalk, SIDEWALK_M, kinds.none))
    lanes = xodr.Lanes()
    lanes.add_lanesection(section)
    return lanes


def _add_hill(street: Street) -> None:
    """Up, along the top, down; each slope a smoothstep, so that junctions stay level."""
    rise_m, margin_m = 90.0, 15.0
    cubic = (3.0 * HILL_M / rise_m**2, -2.0 * HILL_M / rise_m**3)
    top = street.length_m - margin_m - rise_m
    street.road.add_elevation(0.0, 0.0, 0.0, 0.0, 0.0)
    street.road.add_elevation(margin_m, 0.0, 0.0, *cubic)
    street.road.add_elevation(margin_m + rise_m, HILL_M, 0.0, 0.0, 0.0)
    street.road.add_elevation(top, HILL_M, 0.0, -cubic[0], -cubic[1])
    street.road.add_elevation(top + rise_m, 0.0, 0.0, 0.0, 0.0)


def _add_signal(town: Town, junction_id: int, arm: Arm, kind: str) -> str:
    """Put the post beside the end of the approach; return its id."""
    signal_id = str(500 + len(town.signals))
    side_m = arm.lanes_in * LANE_M + SHOULDER_M + 0.5
    s_m, t_m = (arm.street.length_m - 0.6, -side_m) if arm.at_end else (0.6, side_m)
    attributes = {
        "name": f"Signal_{kind}", "id": signal_id, "s": repr(s_m), "t": repr(t_m), "zOffset": "0", "hOffset": "0",
        "roll": "0", "pitch": "0", "orientation": "-" if arm.at_end else "+", "country": "OpenDRIVE", "type": kind,
        "dynamic": "yes" if kind == LIGHT else "no", "subtype": "-1", "value": "-1", "text": "", "height": "1",
        "width": "0.5",
    }  # fmt: skip
    town.signals.append((arm.street.id, "signal", attributes, 0))  # the references say which lanes it is for
    if kind == LIGHT:
        town.controllers.setdefault(junction_id, []).append(signal_id)
    return signal_id


def _refer(town: Town, road: Any, signal_id: str) -> None:
    attributes = {"id": signal_id, "s": "1.0", "t": "0.0", "orientation": "-"}
    town.signals.append((road.id, "signalReference", attributes, -1))


def _add_crosswalk(arm: Arm) -> None:
    """Across the mouth of an arm, inside the junction, beyond the stop line."""
    from scenariogeneration import xodr

    reach_m = max(arm.street.lanes) * LANE_M + SHOULDER_M
    near, far = (1.8, 4.8) if arm.at_end else (-1.8, -4.8)  # from 1 m before the road's end
    corners = [(near, -reach_m), (far, -reach_m), (far, reach_m), (near, reach_m), (near, -reach_m)]
    outline = xodr.Outline()
    for u, v in corners:
        outline.add_corner(xodr.CornerLocal(u, v, 0.0, 0.0))
    s_m = arm.street.length_m - 1.0 if arm.at_end else 1.0
    number = 900 + arm.street.id * 2 + arm.at_end
    crosswalk = xodr.Object(
        s_m, 0.0, xodr.ObjectType.crosswalk, id=str(number), name=f"Crosswalk_{number}", width=2 * reach_m, length=3.0,
        orientation=xodr.Orientation.none,
    )  # fmt: skip
    crosswalk.add_outline(outline)
    arm.street.road.add_object(crosswalk)


def _write_carla_parts(root: ElementTree.Element, town: Town) -> None:
    """Signals and outlines as CARLA's towns have them: one controller per light, hence a phase per approach.

    The library renumbers references, knows no controllers, and wraps outlines in what CARLA does not read.
    """
    for node in root.iter("object"):
        for wrapper in node.findall("outlines"):
            node.extend(list(wrapper))
            node.remove(wrapper)
    roads = {int(node.get("id", "-1")): node for node in root.iter("road")}
    for road_id, tag, attributes, lane in town.signals:
        holder = roads[road_id].find("signals")
        holder = ElementTree.SubElement(roads[road_id], "signals") if holder is None else holder
        node = ElementTree.SubElement(holder, tag, attributes)
        ElementTree.SubElement(node, "validity", {"fromLane": str(lane), "toLane": str(lane)})
    junctions = {int(node.get("id", "-1")): node for node in root.iter("junction")}
    number = 700
    for junction_id, signals in town.controllers.items():
        for sequence, signal in enumerate(signals):
            attributes = {"name": f"ctrl{number}", "id": str(number), "sequence": str(sequence)}
            controller = ElementTree.SubElement(root, "controller", attributes)
            ElementTree.SubElement(controller, "control", {"signalId": signal, "type": ""})
            reference = {"id": str(number), "type": "0", "sequence": str(sequence)}
            ElementTree.SubElement(junctions[junction_id], "controller", reference)
            number += 1
