"""A non-blocking TCP connection with a bounded outgoing queue, and the listening socket that makes them."""

from __future__ import annotations

import errno
import resource
import socket
from collections import deque
from collections.abc import Callable, Sequence

from drivesim.carla_server.doorbell import unread_bytes
from drivesim.carla_server.reactor import Reactor

Part = bytes | bytearray | memoryview
READ_SIZE = 1 << 18
BACKLOG_LIMIT = 96 << 20
WAITING_LIMIT = 20_000
CONNECTION_LIMIT = 512
KEPT_DESCRIPTORS = 128  # for files, libraries and the other port
ACCEPT_PAUSE_S = 0.2


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
        self.unhandled = 0  # bytes received that nobody has dealt with yet
        self.useful = False  # has it ever said something that makes sense?
        self._paused = False
        self.on_data: Callable[[bytes], None] = ignore
        self.on_close: Callable[[], None] = lambda: None
        self.on_drained: Callable[[], None] = lambda: None
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
            False when the connection is closed, or was closed now because its reader lags by more than `limit` bytes
            or WAITING_LIMIT messages.
        """
        if not self.open:
            return False
        views = [memoryview(part).cast("B") for part in parts if len(part)]
        if not self._queue:
            views = self._send_now(views)
        if not views or not self.open:
            return self.open
        self.backlog += sum(view.nbytes for view in views)
        if self.backlog > limit or self.waiting >= WAITING_LIMIT:
            self.close()
            return False
        for view in views:
            # what stays is copied, unless it is bytes: the caller may reuse its buffers
            self._queue.append(view if type(view.obj) is bytes else memoryview(bytes(view)))
            self._ends.append(False)
        self._ends[-1] = True
        self.waiting += 1
        self.account()
        self._watch()
        return self.open

    def pause(self) -> None:
        """Read no more until `resume`; what is queued is still sent."""
        self._paused = True
        self._watch()

    def resume(self) -> None:
        """Read again."""
        if self._paused:
            self._paused = False
            self._watch()

    def account(self) -> None:
        """Tell the reactor's ledger what this connection holds; call when `unhandled` has changed."""
        if self.open:
            self.reactor.ledger.note(self, self.backlog + self.unhandled)

    def _watch(self) -> None:
        if self.open:
            writable = self._writable if self._queue else None
            self.reactor.watch(self.sock, None if self._paused else self._readable, writable)

    def close(self) -> None:
        """Close the socket and tell `on_close` once."""
        if not self.open:
            return
        self.open = False
        self.reactor.forget(self.sock)
        self.sock.close()
        self._queue.clear()
        self._ends.clear()
        self.reactor.ledger.note(self, 0)
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
        self.account()
        self._watch()
        if self.open:
            self.on_drained()

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
        self._limit = connection_limit()
        self.connections: dict[Connection, None] = {}  # oldest first
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
            except (BlockingIOError, InterruptedError, ConnectionError):
                return
            except OSError:  # out of descriptors: the backlog stays readable, so look away for a while
                self._reactor.forget(self.sock)
                self._reactor.call_later(ACCEPT_PAUSE_S, self._listen_again)
                return
            if len(self.connections) >= self._limit and not self._made_room():
                sock.close()
                continue
            connection = Connection(self._reactor, sock)
            self.connections[connection] = None
            self._accepted(connection)
            connection.on_close = self._forgetting(connection, connection.on_close)

    def _listen_again(self) -> None:
        if self.sock.fileno() >= 0:
            self._reactor.watch(self.sock, self._accept)

    def _made_room(self) -> bool:
        """Close the oldest connection that has never said anything; False where there is none."""
        idle = next((connection for connection in self.connections if not connection.useful), None)
        if idle is not None:
            idle.close()
        return idle is not None

    def _forgetting(self, connection: Connection, then: Callable[[], None]) -> Callable[[], None]:
        def forget() -> None:
            self.connections.pop(connection, None)
            then()

        return forget


def connection_limit() -> int:
    """Most connections of one port: CONNECTION_LIMIT, or fewer where the process may not open so many."""
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if allowed == resource.RLIM_INFINITY:
        return CONNECTION_LIMIT
    return max(min(CONNECTION_LIMIT, (allowed - KEPT_DESCRIPTORS) // 2), 8)


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
