"""The server: its two ports, its thread, and ticks that wait for Traffic Managers before they are answered."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Any

from drivesim.carla_server import framing
from drivesim.carla_server.connection import Connection, Listener
from drivesim.carla_server.guard import TrafficManagers
from drivesim.carla_server.method_table import method_table
from drivesim.carla_server.painter import Painter
from drivesim.carla_server.physics_controls import PhysicsControls
from drivesim.carla_server.reactor import Reactor, Timer
from drivesim.carla_server.reaping import Reaper
from drivesim.carla_server.recordings import Recordings
from drivesim.carla_server.rpc import Peer
from drivesim.carla_server.simulation import FREE_RUN_S, Simulation
from drivesim.carla_server.streaming import StreamHub
from drivesim.carla_server.ticking import Ticks

WATCH_S = 0.1
MOST_PAINTERS = 4
PAIR_ATTEMPTS = 64
log = logging.getLogger(__name__)


class CarlaServer:
    """A CARLA 0.9.16 server for one town; `start` serves in a thread, `serve` in the caller's."""

    def __init__(
        self, town_name: str = "Town02", host: str = "127.0.0.1", port: int = 2000, *, seed: int = 0,
        capacity: int = 512, painters: int = 0, draw_ahead: bool = False, recordings: Recordings | None = None,
        reap: bool = False,
    ) -> None:  # fmt: skip
        """Load the town and open both ports.

        Args:
            town_name: one of drivesim.town.towns.KNOWN_TOWNS.
            host: address to bind; loopback unless told otherwise.
            port: of the calls; streaming takes the next one. 0 takes any free pair.
            seed: of the town (its scenery, its lights, its own traffic).
            capacity: most vehicles, walkers and props at a time.
            painters: threads that draw; 0 for one less than there are cores, at most MOST_PAINTERS.
            draw_ahead: make the town's renderer now, instead of when the first camera listens.
            recordings: where the recorder's files lie; `Recordings()` when None.
            reap: destroy a client's actors when its connection ends; CARLA keeps them.

        Raises:
            OSError: a port is in use.
            ValueError: no such town.
        """
        self.reactor = Reactor()
        self.host = host
        self._thread: threading.Thread | None = None
        self._free_run: Timer | None = None
        self.managers = TrafficManagers(self.reactor.post, self._unread_by)
        self.physics_controls = PhysicsControls()
        self.recordings = recordings or Recordings()
        self.at_close: list[Callable[[], None]] = []  # what else ends with the server
        self.listener, self.hub = listen_on_neighbours(self.reactor, host, port, self._accepted)
        try:
            cores = os.cpu_count() or 1  # one is left to the clients and to the calls
            painter = Painter(self.reactor.post, painters or max(min(cores - 1, MOST_PAINTERS), 1))
            self.simulation = Simulation(town_name, self.hub, painter, seed=seed, capacity=capacity)
            self.simulation.warm_up()
            if draw_ahead:
                self.simulation.draw_ahead()
        except BaseException:
            self.listener.close()
            self.hub.close()
            raise
        self.ticks = Ticks(self.reactor, self.managers, lambda: self.simulation.tick())
        self._table = method_table(self)
        self._reaper = Reaper(self, self._table) if reap else None
        framing.rehearse()

    @property
    def port(self) -> int:
        """The port that clients connect to."""
        return self.listener.port

    def start(self) -> None:
        """Serve in a thread of its own until `stop`."""
        if self._thread is not None:
            raise RuntimeError("the server runs already")
        self._thread = threading.Thread(target=self.serve, name="carla-server", daemon=True)
        self._thread.start()

    def serve(self) -> None:
        """Serve in this thread until `stop` is called from elsewhere (a signal handler will do)."""
        self._watch()
        self._run_free()
        try:
            self.reactor.run()
        finally:
            for action in self.at_close:
                action()
            self.listener.close()
            self.hub.close()
            self.simulation.painter.close()
            self.reactor.close()

    def stop(self) -> None:
        """End `serve`; waits for the thread of `start`."""
        self.reactor.stop()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=10.0)

    def __enter__(self) -> CarlaServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # ---- ticks

    def tick_for(self, peer: Peer, answer: Any = None) -> Any:
        """Step once for a client; the answer is the new frame by default."""
        if not self.simulation.settings.synchronous_mode:
            frame = self.simulation.tick()
            return frame if answer is None else answer
        return self.ticks.ask(peer, answer)

    def settings_changed(self) -> None:
        """Start or stop ticking by the wall clock, as the settings say."""
        if self._free_run is not None:
            self._free_run.cancel()
            self._free_run = None
        if not self.simulation.settings.synchronous_mode:
            self._free_run = self.reactor.call_later(FREE_RUN_S, self._run_free)

    def _run_free(self) -> None:
        if self.simulation.settings.synchronous_mode:
            return
        started_s = time.monotonic()
        self._free_run = None
        try:
            self.simulation.tick()
        finally:
            spent_s = time.monotonic() - started_s
            self._free_run = self.reactor.call_later(max(FREE_RUN_S - spent_s, 0.001), self._run_free)

    def _watch(self) -> None:
        self.managers.watch()
        self.reactor.call_later(WATCH_S, self._watch)

    # ---- connections

    def _unread_by(self, peer: Peer) -> int:
        return peer.connection.unread() + self.hub.unread_by(peer.world_name)

    def _accepted(self, connection: Connection) -> None:
        peer = Peer(connection, self._table)
        connection.on_close = lambda: self._gone(peer)

    def _gone(self, peer: Peer) -> None:
        self.managers.forget(peer)
        if self._reaper is not None:
            self._reaper.forget(peer)


def listen_on_neighbours(
    reactor: Reactor, host: str, port: int, accepted: Callable[[Connection], None]
) -> tuple[Listener, StreamHub]:
    """The calls' port and, next to it as CARLA has it, the streaming port; any such pair for port 0."""
    attempts = PAIR_ATTEMPTS if port == 0 else 1
    while True:
        listener = Listener(reactor, host, port, accepted)
        try:
            return listener, StreamHub(reactor, host, listener.port + 1 if listener.port < 65535 else 0)
        except OSError:  # the neighbour is somebody's: any program's outgoing connection may have it
            listener.close()
            attempts -= 1
            if attempts == 0:
                raise
