"""Destroys what a client made when its connection ends; CARLA itself keeps it, and so do we unless asked."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from drivesim.carla_server.commands import Batch
from drivesim.carla_server.rpc import Call, Peer, Refusal

if TYPE_CHECKING:
    from drivesim.carla_server.server import CarlaServer

log = logging.getLogger(__name__)

MAKING = ("spawn_actor", "spawn_actor_with_parent", "apply_batch")


class Reaper:
    """Remembers which connection made which actors."""

    def __init__(self, server: CarlaServer, table: dict[str, Call]) -> None:
        """Watch the calls of `table` that make actors."""
        self._server = server
        self._batch = Batch(server)
        self._made: dict[Peer, list[tuple[int, int]]] = {}  # (episode, actor)
        for name in MAKING:
            table[name] = self._watched(table[name])

    def _watched(self, call: Call) -> Call:
        def handler(peer: Peer, *arguments: Any) -> Any:
            episode = self._server.simulation.episode
            first = episode.actors.next_id
            try:
                return call.handler(peer, *arguments) if call.peer else call.handler(*arguments)
            finally:
                made = range(first, episode.actors.next_id)
                if made:
                    known = [pair for pair in self._made.get(peer, []) if self._lives(pair)]
                    self._made[peer] = known + [(episode.episode_id, number) for number in made]

        return replace(call, handler=handler, peer=True)

    def _lives(self, pair: tuple[int, int]) -> bool:
        episode = self._server.simulation.episode
        return pair[0] == episode.episode_id and episode.actors.get(pair[1]) is not None

    def forget(self, peer: Peer) -> None:
        """Destroy what lives of a connection that has ended, the last made first; soon, not now."""
        made = self._made.pop(peer, [])
        if made:
            self._server.reactor.post(lambda: self._destroy(made))

    def _destroy(self, made: list[tuple[int, int]]) -> None:
        doomed = [number for episode, number in reversed(made) if self._lives((episode, number))]
        for number in doomed:
            with contextlib.suppress(Refusal):
                self._batch.destroy(number)
        log.info("reaped %d actors of a client that is gone", len(doomed))
