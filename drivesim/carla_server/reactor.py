"""One thread, one selector: sockets, timers and wake-ups of the server.

Everything of the server runs on the reactor's thread, so no lock is needed anywhere above it.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable

from drivesim.carla_server.ledger import Ledger

log = logging.getLogger(__name__)

ERRANDS_S = 0.004  # of every turn, for those who have had their share

Callback = Callable[[], None]


class Timer:
    """A call that is due at `due_s` (monotonic); `cancel` makes it a no-op."""

    __slots__ = ("action", "due_s")

    def __init__(self, due_s: float, action: Callback) -> None:
        self.due_s = due_s
        self.action: Callback | None = action

    def cancel(self) -> None:
        """Forget the call."""
        self.action = None


class Reactor:
    """A loop over readable and writable sockets, timers, and calls posted from other threads."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._posted: deque[Callback] = deque()
        self._errands: deque[Callback] = deque()
        self.ledger = Ledger()
        self._stopping = False
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_read.setblocking(False)
        self._wake_write.setblocking(False)
        self.watch(self._wake_read, self._woken)
        self.thread_id = threading.get_ident()

    def watch(self, sock: socket.socket, readable: Callback | None, writable: Callback | None = None) -> None:
        """Call `readable` and `writable`, where given, whenever the socket is; replaces an earlier watch."""
        events = (selectors.EVENT_READ if readable else 0) | (selectors.EVENT_WRITE if writable else 0)
        data = (readable, writable)
        if not events:
            self.forget(sock)
        elif sock in self._selector.get_map():
            self._selector.modify(sock, events, data)
        else:
            self._selector.register(sock, events, data)

    def forget(self, sock: socket.socket) -> None:
        """Stop watching; harmless where it was not watched."""
        if sock.fileno() >= 0 and sock in self._selector.get_map():
            self._selector.unregister(sock)

    def call_later(self, delay_s: float, action: Callback) -> Timer:
        """Run `action` after `delay_s`; returns a handle to cancel it."""
        timer = Timer(time.monotonic() + delay_s, action)
        heapq.heappush(self._timers, (timer.due_s, next(self._order), timer))
        return timer

    def post(self, action: Callback) -> None:
        """Run `action` on the reactor's thread; callable from any thread."""
        self._posted.append(action)
        self._wake()

    def post_errand(self, action: Callback) -> None:
        """Run `action` when everybody else has had a turn; from the reactor's thread only."""
        self._errands.append(action)

    def stop(self) -> None:
        """End `run` soon; callable from any thread and from signal handlers."""
        self._stopping = True
        self._wake()

    def run(self) -> None:
        """Serve until `stop`."""
        self.thread_id = threading.get_ident()
        while not self._stopping:
            self._turn()

    def close(self) -> None:
        """Release the selector and the wake-up pair (after `run` has returned)."""
        self._selector.close()
        self._wake_read.close()
        self._wake_write.close()

    def _wake(self) -> None:
        try:
            self._wake_write.send(b"w")
        except (BlockingIOError, OSError):
            return  # a full pipe wakes as well; a closed one has nobody to wake

    def _woken(self) -> None:
        try:
            self._wake_read.recv(4096)
        except BlockingIOError:
            return

    def _turn(self) -> None:
        for key, events in self._selector.select(self._wait_s()):
            readable, writable = key.data
            if events & selectors.EVENT_READ and readable is not None:
                _guarded(readable)
            if events & selectors.EVENT_WRITE and writable is not None:
                _guarded(writable)
        for _ in range(len(self._posted)):
            _guarded(self._posted.popleft())
        now_s = time.monotonic()
        for _ in range(len(self._errands)):
            _guarded(self._errands.popleft())
            if time.monotonic() - now_s > ERRANDS_S:
                break
        now_s = time.monotonic()
        while self._timers and self._timers[0][0] <= now_s:
            action = heapq.heappop(self._timers)[2].action
            if action is not None:
                _guarded(action)

    def _wait_s(self) -> float | None:
        if self._posted or self._errands:
            return 0.0
        while self._timers and self._timers[0][2].action is None:
            heapq.heappop(self._timers)
        if not self._timers:
            return None
        wait_s = self._timers[0][0] - time.monotonic()
        if wait_s > 0.001:
            return wait_s - 0.001  # the selector rounds up to whole milliseconds
        if wait_s > 0.0:
            time.sleep(min(wait_s, 0.0005))
        return 0.0


def _guarded(action: Callback) -> None:
    """Run one callback; whatever it raises is logged, never fatal to the server."""
    try:
        action()
    except Exception:
        log.exception("a callback of the server failed")
