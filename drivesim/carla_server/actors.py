"""The actors that clients see: those of the town's rows, and sensors, lights, signs and the spectator beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drivesim.carla_server.poses import Floats
from drivesim.carla_server.rpc import Packed, pack
from drivesim.carla_server.structs import Vector, box_to_wire

ACTOR_LIMIT = 20_000
RETIRED_LIMIT, ID_LEAP = 4096, 100_000
SENSOR_STREAM = 1_000_000  # stream id of a sensor = this + its actor id; the world's is 1


@dataclass
class ServerActor:
    """One actor as CARLA's Actor struct has it; its pose lives in the town's row or in `matrix`."""

    actor_id: int
    type_id: str
    uid: int = 0
    attributes: tuple[tuple[str, int, str], ...] = ()
    parent_id: int = 0
    row: int = -1  # of the town; -1: not an actor of the town
    box_centre: Vector = (0.0, 0.0, 0.0)
    box_extent: Vector = (0.0, 0.0, 0.0)
    tags: bytes = b""
    stream_id: int = 0
    light: int = -1  # of the road network
    matrix: Floats = field(default_factory=lambda: np.eye(4))  # world from actor, where row is -1
    relative: Floats | None = None  # parent from actor, where attached
    _wire: Packed | None = None

    def value(self, name: str, default: str = "") -> str:
        """The value of an attribute."""
        return next((value for key, _, value in self.attributes if key == name), default)

    def number(self, name: str, default: float) -> float:
        """The value of an attribute as a number; what is no finite number gives the default."""
        try:
            value = float(self.value(name, str(default)).rstrip("fF"))
        except ValueError:
            return default
        return value if np.isfinite(value) else default

    def to_wire(self, token: Callable[[int], bytes]) -> Packed:
        """The packed Actor struct; made once, because clients cache it for ever."""
        if self._wire is None:
            description = [self.uid, self.type_id, [list(attribute) for attribute in self.attributes]]
            box = box_to_wire(self.box_centre, self.box_extent, self.actor_id)
            stream = token(self.stream_id) if self.stream_id else b""
            self._wire = Packed(bytes(pack([self.actor_id, self.parent_id, description, box, self.tags, stream])))
        return self._wire


class ActorTable:
    """All actors of an episode by id; ids only grow, also across episodes.

    A replay alone may give an id again: to an actor like the one that had it, since clients keep what they know of it.
    """

    def __init__(self, capacity: int, first_id: int) -> None:
        self._by_id: dict[int, ServerActor] = {}
        self.next_id = first_id
        self.row_id: NDArray[np.uint32] = np.zeros(capacity, np.uint32)  # actor id of each row of the town
        self.changes = 0  # counts additions and removals
        self._retired: dict[int, object] = {}  # the last that were removed: id -> what clients know of it

    def __iter__(self) -> Iterator[ServerActor]:
        return iter(self._by_id.values())

    def __len__(self) -> int:
        return len(self._by_id)

    def add(self, type_id: str, *, wanted_id: int = 0, **fields: Any) -> ServerActor:
        """A new actor with the next id, or with the wanted one where clients know nothing else by it."""
        actor = ServerActor(self.next_id, type_id, **fields)
        unused = self.next_id <= wanted_id < self.next_id + ID_LEAP
        if unused or (wanted_id in self._retired and self._retired[wanted_id] == _known(actor)):
            actor.actor_id = wanted_id
        self._retired.pop(actor.actor_id, None)
        self.next_id = max(self.next_id, actor.actor_id + 1)
        self._by_id[actor.actor_id] = actor
        if actor.row >= 0:
            self.row_id[actor.row] = actor.actor_id
        self.changes += 1
        return actor

    def remove(self, actor: ServerActor) -> None:
        """Forget an actor."""
        del self._by_id[actor.actor_id]
        self._retired[actor.actor_id] = _known(actor)
        if len(self._retired) > RETIRED_LIMIT:
            del self._retired[next(iter(self._retired))]
        if actor.row >= 0:
            self.row_id[actor.row] = 0
        self.changes += 1

    def get(self, actor_id: Any) -> ServerActor | None:
        """The actor of an id, or None."""
        return self._by_id.get(actor_id) if type(actor_id) is int else None

    def of_row(self, row: int) -> ServerActor | None:
        """The actor of a row of the town, or None."""
        return self._by_id.get(int(self.row_id[row])) if row >= 0 else None


def _known(actor: ServerActor) -> object:
    """What clients keep of an actor for the whole episode."""
    return actor.type_id, actor.uid, actor.attributes, actor.parent_id, actor.stream_id
