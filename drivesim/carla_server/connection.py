"""A non-blocking TCP connection with a bounded outgoing queue, and the listening socket that makes them."""

from __future__ import annotations

import errno
import socket
from collections import deque
from collections.abc import Callable, Sequence

from drivesim.carla_server.doorbell import unread_bytes
from drivesim.carla_server.reactor import Reactor

Part = bytes | bytearray | memoryview
READ_SIZE = 1 << 18
BACKLOG_LIMIT = 96 << 20
CONNECTION_LIMIT = 512


def ignore(_: bytes) -> None:
    """What a connection does with bytes that nobody waits for."""


class Connection:
    """One client socket: received bytes go to `on_data`, the end of it to `on_close` (once)."""

    def __init__(self, reactor: Reactor, sock: socket.socket) -> None:
        self.reactor = reactor
        self.sock = sock
        self.open = True
        self.backlog = 0  # bytes accepted by `send` that the kernel has not taken yet
        self.waiting = 0  # messages among them
        self.on_data: Callable[[bytes], None] = ignore
        self.on_close: Callable[[], None] = lambda: None
        self._queue: deque[memoryview] = deque()
        self._ends: deque[bool] = deque()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        reactor.watch(sock, self._readable)

    @property
    def peer_host(self) -> str:
        """The other end's address, as text; empty once it is gone."""
        try:
            return str(self.sock.getpeername()[0])
        except OSError:
            return ""

    def unread(self) -> int:
        """Bytes sent that the other end has not read, as far as that can be seen."""
        return self.backlog + unread_bytes(self.sock) if self.open else 0

    def send(self, parts: Sequence[Part], limit: int = BACKLOG_LIMIT) -> bool:
        """Send one message made of `parts`, without copying what the kernel takes at once.

        Returns:
            False when the connection is closed, or was closed now because its reader lags by more than `limit` bytes.
        """
        if not self.open:
            return False
        views = [memoryview(part).cast("B") for part in parts if len(part)]
        if not self._queue:
            views = self._send_now(views)
        if not views or not self.open:
            return self.open
        self.backlog += sum(view.nbytes for view in views)
        if self.backlog > limit:
            self.close()
            return False
        for view in views:
            # what stays is copied: the caller may reuse its buffers
            self._queue.append(memoryview(bytes(view)))
            self._ends.append(False)
        self._ends[-1] = True
        self.waiting += 1
        self.reactor.watch(self.sock, self._readable, self._writable)
        return True

    def close(self) -> None:
        """Close the socket and tell `on_close` once."""
        if not self.open:
            return
        self.open = False
        self.reactor.forget(self.sock)
        self.sock.close()
        self._queue.clear()
        self._ends.clear()
        self.on_close()

    def _send_now(self, views: list[memoryview]) -> list[memoryview]:
        while views:
            try:
                sent = self.sock.sendmsg(views[:64])
            except (BlockingIOError, InterruptedError):
                return views
            except OSError:
                self.close()
                return []
            while views and sent >= views[0].nbytes:
                sent -= views[0].nbytes
                views = views[1:]
            if sent:
                views = [views[0][sent:], *views[1:]]
        return views

    def _writable(self) -> None:
        while self._queue and self.open:
            try:
                sent = self.sock.sendmsg(list(self._queue)[:64] if len(self._queue) < 256 else [self._queue[0]])
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                self.close()
                return
            self.backlog -= sent
            self._drop_sent(sent)
        if self.open:
            self.reactor.watch(self.sock, self._readable)

    def _drop_sent(self, sent: int) -> None:
        while self._queue and sent >= self._queue[0].nbytes:
            sent -= self._queue.popleft().nbytes
            self.waiting -= self._ends.popleft()
        if sent:
            self._queue[0] = self._queue[0][sent:]

    def _readable(self) -> None:
        if not self.open:
            return
        try:
            data = self.sock.recv(READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        self.on_data(data)


class Listener:
    """A listening socket that hands each accepted connection to `accepted`."""

    def __init__(self, reactor: Reactor, host: str, port: int, accepted: Callable[[Connection], None]) -> None:
        """Bind and listen.

        Raises:
            OSError: the address cannot be had; the message names it and says what to do.
        """
        self._reactor = reactor
        self._accepted = accepted
        self.connections: set[Connection] = set()
        self.sock = _bound(host, port)
        self.port = int(self.sock.getsockname()[1])
        self.sock.setblocking(False)
        reactor.watch(self.sock, self._accept)

    def close(self) -> None:
        """Stop listening and close all its connections."""
        self._reactor.forget(self.sock)
        self.sock.close()
        for connection in list(self.connections):
            connection.close()

    def _accept(self) -> None:
        for _ in range(64):
            try:
                sock, _address = self.sock.accept()
            except OSError:
                return
            if len(self.connections) >= CONNECTION_LIMIT:
                sock.close()
                continue
            connection = Connection(self._reactor, sock)
            self.connections.add(connection)
            self._accepted(connection)
            connection.on_close = self._forgetting(connection, connection.on_close)

    def _forgetting(self, connection: Connection, then: Callable[[], None]) -> Callable[[], None]:
        def forget() -> None:
            self.connections.discard(connection)
            then()

        return forget


def _bound(host: str, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
        sock.listen(256)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            text = f"port {port} on {host} is in use: another server runs there; choose another with --port"
            raise OSError(errno.EADDRINUSE, text) from None
        raise OSError(error.errno, f"cannot listen on {host}:{port}: {error.strerror}") from None
    return sock
