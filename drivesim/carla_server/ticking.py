"""Ticks that clients ask for: made when the Traffic Managers are ready for them, answered when they may be woken."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from drivesim.carla_server.guard import TrafficManagers
from drivesim.carla_server.reactor import Reactor
from drivesim.carla_server.rpc import Deferred, Peer

log = logging.getLogger(__name__)


@dataclass
class Cue:
    """One tick that a client has asked for."""

    peer: Peer
    deferred: Deferred
    answer: Any  # None: the frame
    asked_s: float


class Ticks:
    """Makes ticks in the order they are asked for; lives on the reactor's thread."""

    def __init__(self, reactor: Reactor, managers: TrafficManagers, tick: Callable[[], int]) -> None:
        """Args: `tick` steps the world, publishes the snapshot and returns its frame."""
        self._reactor = reactor
        self._managers = managers
        self._tick = tick
        self._cues: deque[Cue] = deque()

    def ask(self, peer: Peer, answer: Any = None) -> Any:
        """Step once for a client.

        Args:
            peer: whose call is being handled.
            answer: of the call; None answers the new frame.

        Returns:
            What the call's handler returns.
        """
        if not self._managers and not self._cues:
            frame = self._tick()
            return frame if answer is None else answer
        cue = Cue(peer, peer.defer(), answer, time.monotonic())
        self._cues.append(cue)
        if self._cues[0] is cue:
            self._next()
        return cue.deferred

    def hold(self, peer: Peer, answer: Any) -> Any:
        """Answer a call after which the client wakes its Traffic Managers although there is no tick."""
        if not self._managers:
            return answer
        cue = Cue(peer, peer.defer(), answer, time.monotonic())
        self._answer(cue)
        return cue.deferred

    def _next(self) -> None:
        while self._cues:
            cue = self._cues[0]
            if cue.peer.connection.open:
                wait_s = self._managers.tick_in_s(cue.asked_s)
                if wait_s > 0.0:
                    self._reactor.call_later(wait_s, self._next)
                    return
                self._make(cue)
            self._cues.popleft()

    def _make(self, cue: Cue) -> None:
        try:
            frame = self._tick()
        except Exception as error:
            log.exception("a tick failed")
            cue.deferred.refuse(f"the tick failed in the server ({type(error).__name__}: {error})")
            return
        cue.answer = frame if cue.answer is None else cue.answer
        self._managers.tick_made()
        self._answer(cue)

    def _answer(self, cue: Cue) -> None:
        wait_s = self._managers.release_in_s(cue.asked_s)
        if wait_s > 0.0:
            self._reactor.call_later(wait_s, lambda: self._answer(cue))
            return
        self._managers.tick_answered(cue.peer)
        cue.deferred.reply(cue.answer)
