"""Keeps an unmodified client's Traffic Manager from sleeping through its wake-up.

In synchronous mode the client's main thread wakes its Traffic Manager (TM) thread without holding the mutex of the
condition variable: a TM that is just between testing the flag and going to sleep misses it, and `world.tick()` hangs
for ever. Two cures, both on this side of the wire:

- the guard: the TM asks for the episode settings immediately before it goes to sleep, so the answer of a tick is held
  back until that call lies at least `GUARD_S` in the past. Stepping and rendering go on meanwhile, so that a tick that
  takes longer anyway pays nothing;
- the watchdog: after an answered tick the TM must ask for the vehicles' light states. If it does not within `KICK_S`,
  its own rpc port is told to leave and enter synchronous mode, which wakes the thread into its normal step. Before, it
  is asked for a sign of life and given `GRACE_S` more: a client that is merely starved or stopped is not kicked, since
  a kick in the middle of a step could make it step twice.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgpack

from drivesim.carla_server.rpc import Deferred, Peer

log = logging.getLogger(__name__)

GUARD_S = 0.0015
BUSY_LIMIT_S = 0.1
KICK_S = 2.0  # a Traffic Manager that is only starved of CPU must not be kicked: it would step twice
GRACE_S = 0.15
KICK_TIMEOUT_S = 5.0


@dataclass
class Manager:
    """What is known of the TMs behind one client connection."""

    peer: Peer
    endpoints: dict[int, str] = field(default_factory=dict)  # port -> registered host
    busy: bool = False
    idle_since_s: float = 0.0
    steps: int = 0  # light-state calls so far
    expected_by_s: float | None = None
    watched: bool = False  # the watchdog's thread is at it
    kicking: bool = False
    held: list[tuple[Deferred, Any]] = field(default_factory=list)


class TrafficManagers:
    """The registry of TMs, their guard and their watchdog; lives on the reactor's thread."""

    def __init__(self, post: Callable[[Callable[[], None]], None]) -> None:
        self._post = post
        self._managers: dict[Peer, Manager] = {}
        self.kicks = 0

    def __bool__(self) -> bool:
        return bool(self._managers)

    def register(self, peer: Peer, host: str, port: int) -> bool:
        """Note a TM; False where another one holds the port."""
        if self.find(port) is not None:
            return False
        self._managers.setdefault(peer, Manager(peer)).endpoints[port] = host
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
        manager = self._managers.pop(peer, None)
        if manager is not None:
            self._release(manager)

    def light_states_asked(self, peer: Peer, value: Any) -> Any:
        """A TM began its step; answers `value`, later where the TM is being kicked."""
        manager = self._managers.get(peer)
        if manager is None:
            return value
        manager.busy = True
        manager.steps += 1
        manager.expected_by_s = None
        if not manager.kicking:
            return value
        deferred = peer.defer()
        manager.held.append((deferred, value))
        return deferred

    def settings_asked(self, peer: Peer) -> None:
        """A TM (or a user of the same client) asked for the settings: it may be about to sleep."""
        manager = self._managers.get(peer)
        if manager is not None:
            manager.busy = False
            manager.idle_since_s = time.monotonic()

    def release_in_s(self, asked_s: float) -> float:
        """How long the answer of a tick that was asked for at `asked_s` must still be held; 0: not at all."""
        now_s = time.monotonic()
        wait_s = 0.0
        for manager in self._managers.values():
            if manager.busy and now_s - asked_s < BUSY_LIMIT_S:
                wait_s = max(wait_s, GUARD_S)
            else:
                wait_s = max(wait_s, manager.idle_since_s + GUARD_S - now_s)
        return wait_s

    def tick_answered(self, peer: Peer) -> None:
        """Expect a step of this connection's TM, if it ever made one."""
        manager = self._managers.get(peer)
        if manager is not None and manager.steps and not manager.kicking:
            manager.expected_by_s = time.monotonic() + KICK_S

    def watch(self) -> None:
        """See to every TM whose step is overdue; call a few times per second."""
        now_s = time.monotonic()
        for manager in self._managers.values():
            if manager.expected_by_s is not None and manager.expected_by_s < now_s and not manager.watched:
                manager.watched = True
                arguments = (manager, manager.steps, manager.peer.host, tuple(manager.endpoints))
                threading.Thread(target=self._rouse, args=arguments, name="rouse-manager", daemon=True).start()

    def _rouse(self, manager: Manager, steps: int, host: str, ports: tuple[int, ...]) -> None:
        """Kick the TMs of one connection, unless they step by themselves; runs on a thread of its own."""
        for port in ports:
            wake(host, port, lambda: self._kick_is_due(manager, steps))
        self._post(lambda: self._release(manager))

    def _kick_is_due(self, manager: Manager, steps: int) -> bool:
        """Decide on the reactor's thread, where the TM's calls arrive; from then on its next step is held."""
        decided = threading.Event()

        def decide() -> None:
            alive = manager.peer.connection.open and bool(manager.endpoints)
            manager.kicking = alive and manager.expected_by_s is not None and manager.steps == steps
            if manager.kicking:
                self.kicks += 1
                log.warning("a Traffic Manager missed its wake-up: waking it again")
            decided.set()

        self._post(decide)
        return decided.wait(KICK_TIMEOUT_S) and manager.kicking

    def _release(self, manager: Manager) -> None:
        if manager.expected_by_s is not None:  # one that gave no sign of life is tried again, but not at once
            manager.expected_by_s = None if manager.kicking else time.monotonic() + KICK_TIMEOUT_S / 5.0
        manager.kicking = manager.watched = False
        held, manager.held = manager.held, []
        for deferred, value in held:
            deferred.reply(value)


def wake(host: str, port: int, due: Callable[[], bool]) -> bool:
    """Make a TM's rpc server leave and enter synchronous mode, if after a sign of life that is still `due`.

    Returns:
        False where nothing was done: it does not answer, or it stepped by itself.
    """
    try:
        with socket.create_connection((host, port), KICK_TIMEOUT_S) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            unpacker = msgpack.Unpacker(max_buffer_size=1 << 16)
            if not _asked(sock, unpacker, "health_check_remote_TM", []):
                return False
            time.sleep(GRACE_S)
            if not due():
                return False
            return all(_asked(sock, unpacker, "set_synchronous_mode", [mode]) for mode in (False, True))
    except (OSError, ValueError):
        log.warning("the Traffic Manager at %s:%d does not answer", host, port)
        return False


def _asked(sock: socket.socket, unpacker: Any, method: str, arguments: list[Any]) -> bool:
    sock.sendall(msgpack.packb([0, 1, method, arguments]))
    return _answered(sock, unpacker)


def _answered(sock: socket.socket, unpacker: Any) -> bool:
    while True:
        data = sock.recv(4096)
        if not data:
            return False
        unpacker.feed(data)
        for _ in unpacker:
            return True
