"""Keeps synchronous mode in step with the clients' Traffic Managers (TMs), however slow or hasty they are.

A TM is a thread of the client. In synchronous mode `world.tick()` wakes it after each tick and waits for its step; in
asynchronous mode it looks for a new snapshot again and again. Before either it asks for the episode settings:

    read the mode · ask for the settings · (synchronous: sleep until woken | asynchronous: is there a new frame?) · step

Four things would let an outcome depend on speed, or hang, and each has its cure here:

- The wake-up may get lost: `tick()` wakes the thread without holding the mutex of its condition variable. The guard
  holds the answer of a tick back until the TM's question lies at least `GUARD_S` in the past; stepping and rendering go
  on meanwhile. The watchdog wakes a TM that slept on, see `_rouse`.
- A TM that was asynchronous when it read its mode, and was slow to ask or to go on, takes the first synchronous tick's
  snapshot for a new frame and steps twice. So the first tick after a TM appears, or was seen asynchronous, waits until
  it has settled: two questions after the tick was asked for (it is asynchronous, and has read its mode since), or none
  while its process demonstrably runs (it sleeps).
- An asynchronous TM in a synchronous world steps when it gets round to it. The next tick waits for its step.
- A TM that is only slow must not be woken by force: it would step twice. So the watchdog acts only on proof that it
  sleeps: it is between steps, its process gets its share of the processors, and `tick()` has read its snapshot.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from drivesim.carla_server.doorbell import ROUND_S, ROUNDS, Doorbell
from drivesim.carla_server.rpc import Deferred, Peer

log = logging.getLogger(__name__)

GUARD_S = 0.0015
BUSY_LIMIT_S = 0.1
KICK_S = 2.0
AGAIN_S = 1.0
DECIDE_S = 5.0
POLL_S = 0.001
FRESH_ASKS = 2  # the second question was asked after the first one's answer, so with the mode as it is now
SPINNING_ASKS = 4  # in a row without a step: only an asynchronous TM asks like that
SPIN_GAP_S = 0.05  # an asynchronous TM that has not asked for so long may sleep by now
FOLLOW_LIMIT_S = 4.0
SETTLE_LIMIT_S = 12.0


@dataclass
class Manager:
    """What is known of the TMs behind one client connection."""

    peer: Peer
    endpoints: dict[int, str] = field(default_factory=dict)  # port -> registered host
    busy: bool = False
    idle_since_s: float = 0.0
    steps: int = 0  # light-state calls so far
    heard: int = 0  # calls of either kind
    # its mode
    settled: bool = False
    asynchronous: bool = False
    asks: int = 0  # questions for the settings since the last step or tick
    owes: bool = False  # asynchronous, and has not made its step for the last tick
    lost: bool = False  # it owed a step for too long: not waited for until it makes one
    # the tick that waits to be made
    cue_s: float = 0.0
    cue_asks: int = 0
    settling: bool = False
    # the watchdog
    answered: set[Peer] = field(default_factory=set)  # ticks answered since its last step
    tickers: set[Peer] = field(default_factory=set)  # whose ticks it has always followed
    expected_by_s: float | None = None
    expected_of: Peer | None = None
    watched: bool = False
    kicking: bool = False
    held: list[tuple[Deferred, Any]] = field(default_factory=list)


class TrafficManagers:
    """The registry of TMs, their guard and their watchdog; lives on the reactor's thread."""

    def __init__(
        self, post: Callable[[Callable[[], None]], None], unseen: Callable[[Peer], int] = lambda _: 0
    ) -> None:  # fmt: skip
        """Make an empty registry.

        Args:
            post: runs a call on the reactor's thread.
            unseen: bytes of answers and snapshots that a client has been sent and has not read.
        """
        self._post = post
        self._unseen = unseen
        self._managers: dict[Peer, Manager] = {}
        self.kicks = 0

    def __bool__(self) -> bool:
        return bool(self._managers)

    # ---- the registry

    def register(self, peer: Peer, host: str, port: int) -> bool:
        """Note a TM; False where another one holds the port."""
        if self.find(port) is not None:
            return False
        manager = self._managers.setdefault(peer, Manager(peer))
        manager.endpoints[port] = host
        manager.settled = False
        return True

    def find(self, port: int) -> tuple[str, int] | None:
        """The registered host and port of a TM, or None."""
        for manager in self._managers.values():
            if port in manager.endpoints:
                return manager.endpoints[port], port
        return None

    def remove(self, port: int) -> None:
        """Forget a TM (its client said so)."""
        for peer, manager in list(self._managers.items()):
            if manager.endpoints.pop(port, None) is not None:
                manager.expected_by_s = None
            if not manager.endpoints:
                self.forget(peer)

    def forget(self, peer: Peer) -> None:
        """Forget every TM of a connection (it closed)."""
        for other in self._managers.values():
            other.answered.discard(peer)
            other.tickers.discard(peer)
        manager = self._managers.pop(peer, None)
        if manager is not None:
            self._release(manager)

    # ---- what TMs say

    def light_states_asked(self, peer: Peer, value: Any) -> Any:
        """A TM began its step; answers `value`, later where the TM is being kicked."""
        manager = self._managers.get(peer)
        if manager is None:
            return value
        manager.busy, manager.owes, manager.lost, manager.asks = True, False, False, 0
        manager.steps += 1
        manager.heard += 1
        manager.expected_by_s = None
        _learn_ticker(manager)
        if not manager.kicking:
            return value
        deferred = peer.defer()
        manager.held.append((deferred, value))
        return deferred

    def settings_asked(self, peer: Peer) -> None:
        """A TM (or a user of the same client) asked for the settings: it may be about to sleep."""
        manager = self._managers.get(peer)
        if manager is None:
            return
        manager.busy = False
        manager.idle_since_s = time.monotonic()
        manager.asks += 1
        manager.cue_asks += 1
        manager.heard += 1
        if manager.asks >= SPINNING_ASKS:
            manager.asynchronous = True

    # ---- before a tick is made

    def tick_in_s(self, asked_s: float) -> float:
        """How long a tick that was asked for at `asked_s` must still wait to be made; 0: not at all."""
        now_s = time.monotonic()
        waits = [self._wait_for(manager, asked_s, now_s) for manager in self._managers.values()]
        return max(waits, default=0.0)

    def _wait_for(self, manager: Manager, asked_s: float, now_s: float) -> float:
        if manager.settled and not manager.asynchronous:
            return 0.0
        if manager.cue_s != asked_s:
            manager.cue_s, manager.cue_asks = asked_s, 0
        if manager.cue_asks >= FRESH_ASKS and not manager.busy:
            manager.settled = manager.asynchronous = True
            if not manager.owes:
                return 0.0
        waited_s = now_s - asked_s
        if manager.settled and manager.owes and waited_s > FOLLOW_LIMIT_S:
            manager.owes, manager.lost = False, True
        if waited_s > SETTLE_LIMIT_S:  # stopped, or dead: nobody waits for it a second time
            manager.settled, manager.asynchronous, manager.owes = True, False, False
            return 0.0
        quiet_s = now_s - max(manager.idle_since_s, asked_s if manager.settled else 0.0)
        if not manager.settling and (not manager.settled or quiet_s > SPIN_GAP_S):
            manager.settling = True
            arguments = (manager, manager.heard, manager.peer.host, tuple(manager.endpoints))
            threading.Thread(target=self._settle, args=arguments, name="settle-manager", daemon=True).start()
        return POLL_S

    def _settle(self, manager: Manager, heard: int, host: str, ports: tuple[int, ...]) -> None:
        """Let a TM that has anything to do get round to it; runs on a thread of its own."""
        try:
            for port in ports:
                with Doorbell(host, port) as doorbell:
                    doorbell.await_fair_share()
        except (OSError, ValueError):
            time.sleep(ROUNDS * ROUND_S)  # it cannot be reached from here: time alone has to do

        def decide() -> None:
            manager.settling = False
            if manager.heard == heard and not manager.busy:  # silent all the while: it sleeps, in synchronous mode
                manager.settled, manager.asynchronous, manager.owes = True, False, False

        self._post(decide)

    def tick_made(self) -> None:
        """The snapshot of a tick is out: asynchronous TMs will step for it."""
        for manager in self._managers.values():
            manager.owes = manager.asynchronous and not manager.lost

    # ---- before it is answered

    def release_in_s(self, asked_s: float) -> float:
        """How long the answer of a tick that was asked for at `asked_s` must still be held; 0: not at all."""
        now_s = time.monotonic()
        wait_s = 0.0
        for manager in self._managers.values():
            if manager.asynchronous:
                continue
            if manager.busy and now_s - asked_s < BUSY_LIMIT_S:
                wait_s = max(wait_s, GUARD_S)
            else:
                wait_s = max(wait_s, manager.idle_since_s + GUARD_S - now_s)
        return wait_s

    def tick_answered(self, peer: Peer) -> None:
        """Expect a step of every TM that has so far followed this connection's ticks."""
        for manager in self._managers.values():
            manager.asks = 0
            manager.answered.add(peer)
            if manager.tickers == {peer} and not manager.asynchronous and not manager.kicking:
                manager.expected_by_s = time.monotonic() + KICK_S
                manager.expected_of = peer

    # ---- the watchdog

    def watch(self) -> None:
        """See to every TM whose step is overdue; call a few times per second."""
        now_s = time.monotonic()
        for manager in self._managers.values():
            if manager.expected_by_s is not None and manager.expected_by_s < now_s and not manager.watched:
                manager.watched = True
                arguments = (manager, manager.steps, manager.peer.host, tuple(manager.endpoints))
                threading.Thread(target=self._rouse, args=arguments, name="rouse-manager", daemon=True).start()

    def _rouse(self, manager: Manager, steps: int, host: str, ports: tuple[int, ...]) -> None:
        """Wake the TMs of one connection if they sleep through a tick; runs on a thread of its own.

        Leaving synchronous mode sets the flag that `tick()` has set before, and notifies once more. That changes
        nothing for a thread that sleeps with the flag set. For one in the middle of a step, or one whose `tick()` has
        not come so far, it would be a second step; hence the proofs.
        """
        for port in ports:
            try:
                with Doorbell(host, port) as doorbell:
                    doorbell.await_fair_share()
                    doorbell.await_end_of_step()
                    doorbell.await_fair_share()
                    if self._kick_is_due(manager, steps):
                        doorbell.wake()
            except (OSError, ValueError):
                log.warning("the Traffic Manager at %s:%d does not answer", host, port)
        self._post(lambda: self._release(manager))

    def _kick_is_due(self, manager: Manager, steps: int) -> bool:
        """Decide on the reactor's thread, where the TM's calls arrive; from then on its next step is held."""
        decided = threading.Event()

        def decide() -> None:
            alive = manager.peer.connection.open and bool(manager.endpoints)
            asleep = alive and manager.expected_by_s is not None and manager.steps == steps
            ticker = manager.expected_of
            manager.kicking = asleep and ticker is not None and self._unseen(ticker) == 0
            if manager.kicking:
                self.kicks += 1
                log.warning("a Traffic Manager missed its wake-up: waking it again")
            decided.set()

        self._post(decide)
        return decided.wait(DECIDE_S) and manager.kicking

    def _release(self, manager: Manager) -> None:
        if manager.expected_by_s is not None:  # one that is not proven to sleep is looked at again, but not at once
            manager.expected_by_s = None if manager.kicking else time.monotonic() + AGAIN_S
        manager.kicking = manager.watched = False
        held, manager.held = manager.held, []
        for deferred, value in held:
            deferred.reply(value)


def _learn_ticker(manager: Manager) -> None:
    """Whose ticks does this TM follow? Within one process a tick ends with its step, so never twice without one."""
    answered, manager.answered = manager.answered, set()
    if manager.asynchronous or not answered:
        return
    if manager.peer in answered:
        manager.tickers = {manager.peer}
    else:
        manager.tickers = (manager.tickers & answered) or answered
