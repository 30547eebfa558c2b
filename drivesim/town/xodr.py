"""What the baker needs from OpenDRIVE's XML beside what `carla.Map` answers: sections, paint, controllers.

Streams through the file, so that the largest town (89 MB) fits in little memory.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from xml.etree import ElementTree

MPH_TO_MPS = 0.44704
KMH_TO_MPS = 1.0 / 3.6


class OpenDriveError(ValueError):
    """The text is no OpenDRIVE that drivesim can read."""


@dataclass(frozen=True)
class XodrMark:
    """One paint record: it holds from `s_m` (along the section) to the next record of its lane."""

    s_m: float
    kind: str
    color: str
    width_m: float


@dataclass(frozen=True)
class XodrLane:
    """One lane of a section; its marks lie on its OUTER border (lane 0: on the reference line)."""

    id: int
    kind: str
    marks: tuple[XodrMark, ...]


@dataclass(frozen=True)
class XodrSection:
    """A lane section from `start_m` to `end_m` along its road."""

    index: int
    start_m: float
    end_m: float
    lanes: tuple[XodrLane, ...]


@dataclass(frozen=True)
class XodrRoad:
    """A road; `junction` is -1 outside junctions, `speed_limit_mps` 0 when the file gives none."""

    id: int
    junction: int
    length_m: float
    speed_limit_mps: float
    sections: tuple[XodrSection, ...]


@dataclass
class XodrFile:
    """Roads, and how signals cycle: controller -> signals, junction -> controllers in their order."""

    roads: list[XodrRoad] = field(default_factory=list)
    controller_signals: dict[str, list[str]] = field(default_factory=dict)
    junction_controllers: dict[int, list[str]] = field(default_factory=dict)


def read_xodr(text: str) -> XodrFile:
    """Read an OpenDRIVE text.

    Raises:
        OpenDriveError: it is not XML, or holds no road.
    """
    result = XodrFile()
    try:
        for _, element in ElementTree.iterparse(io.BytesIO(text.encode()), events=("end",)):
            _take(result, element)
    except ElementTree.ParseError as error:
        raise OpenDriveError(f"this OpenDRIVE text is not well-formed XML: {error}") from error
    if not result.roads:
        raise OpenDriveError("this OpenDRIVE text holds no <road>")
    return result


def _take(result: XodrFile, element: ElementTree.Element) -> None:
    if element.tag == "road":
        result.roads.append(_road(element))
    elif element.tag == "junction":
        listed = sorted(element.iterfind("controller"), key=lambda c: int(c.get("sequence", "0")))
        result.junction_controllers[int(element.get("id", "-1"))] = [c.get("id", "") for c in listed]
    elif element.tag == "controller" and element.find("control") is not None:
        signals = dict.fromkeys(c.get("signalId", "") for c in element.iterfind("control"))
        result.controller_signals[element.get("id", "")] = list(signals)
        return
    else:
        return
    element.clear()


def _road(element: ElementTree.Element) -> XodrRoad:
    length_m = float(element.get("length", "0"))
    sections = element.findall("lanes/laneSection")
    starts = [float(section.get("s", "0")) for section in sections] + [length_m]
    return XodrRoad(
        id=int(element.get("id", "-1")),
        junction=int(element.get("junction", "-1")),
        length_m=length_m,
        speed_limit_mps=_speed_limit_mps(element),
        sections=tuple(_section(i, starts[i], starts[i + 1], section) for i, section in enumerate(sections)),
    )


def _section(index: int, start_m: float, end_m: float, element: ElementTree.Element) -> XodrSection:
    lanes = tuple(
        XodrLane(int(lane.get("id", "0")), lane.get("type", "none").lower(), _marks(lane))
        for lane in element.iter("lane")
    )
    return XodrSection(index, start_m, end_m, lanes)


def _marks(lane: ElementTree.Element) -> tuple[XodrMark, ...]:
    return tuple(_mark(mark) for mark in lane.iterfind("roadMark"))


def _mark(element: ElementTree.Element) -> XodrMark:
    return XodrMark(
        s_m=float(element.get("sOffset", "0")),
        kind=element.get("type", "none").lower(),
        color=element.get("color", "standard").lower(),
        width_m=float(element.get("width", "0.125")),
    )


def _speed_limit_mps(road: ElementTree.Element) -> float:
    speed = road.find("type/speed")
    if speed is None:
        return 0.0
    try:
        value = float(speed.get("max", "0"))
    except ValueError:  # "no limit", "undefined"
        return 0.0
    scale = {"mph": MPH_TO_MPS, "km/h": KMH_TO_MPS}.get(speed.get("unit", "m/s"), 1.0)
    return value * scale
