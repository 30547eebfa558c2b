"""The streaming port: a client sends a stream id and then receives `size, payload` for ever."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Sequence

from drivesim.carla_server.connection import Connection, Listener, Part, ignore
from drivesim.carla_server.reactor import Reactor

TOKEN = struct.Struct("<IHBB16s")  # stream id, port, protocol, address type, address
PROTOCOL_TCP, ADDRESS_UNSET = 1, 0
SIZE = struct.Struct("<I")
HEADER = struct.Struct("<QQd6f")  # sensor type, frame, time, location, rotation (pitch, yaw, roll; degrees)
SUBSCRIBE_WAIT_S = 5.0
LAGGING_MESSAGES = 4
AWAITED_S = 3.0
KEPT_MESSAGES, KEPT_BYTES = 64, 64 << 20
WORLD_STREAM, WORLD_NAMES = 1, 1 << 19


def _unheard(_: int, __: Connection) -> None:
    """Nobody wants to know of new readers yet."""


def stream_of(name: int) -> int:
    """The stream behind a name; the world's answers to `WORLD_NAMES` of them.

    A client keeps its subscriptions by name. When it subscribes to the snapshots of a new episode before it has left
    those of the old one, an equal name makes it forget the new subscription while it still connects: it crashes.
    """
    return WORLD_STREAM if 0 < name <= WORLD_NAMES else name


class _Awaited:
    """What a reader that asked for a token will miss while it is still connecting."""

    def __init__(self) -> None:
        self.until_s = time.monotonic() + AWAITED_S
        self.kept: list[bytes] = []
        self.size = 0

    def keep(self, framed: Sequence[Part]) -> None:
        message = b"".join(framed)
        self.size += len(message)
        if len(self.kept) < KEPT_MESSAGES and self.size <= KEPT_BYTES:
            self.kept.append(message)


class StreamHub:
    """All streams of the server; whoever asks for a stream's token is expected to dial it soon."""

    def __init__(self, reactor: Reactor, host: str, port: int) -> None:
        self._reactor = reactor
        self._readers: dict[int, list[Connection]] = {}
        self._awaited: dict[int, _Awaited] = {}
        self._named: dict[int, Connection] = {}  # readers of the world by the name they were given
        self._last_name = 0
        self.on_subscribed: Callable[[int, Connection], None] = _unheard
        self.is_stream: Callable[[int], bool] = bool
        self.listener = Listener(reactor, host, port, self._accepted)
        self.port = self.listener.port

    def token(self, stream_id: int) -> bytes:
        """The 24 bytes a client dials; the address is left unset, so that it dials the host it knows."""
        return TOKEN.pack(stream_id, self.port, PROTOCOL_TCP, ADDRESS_UNSET, b"")

    def new_world_name(self) -> int:
        """A name of the world's stream that nobody else uses."""
        self._last_name = self._last_name % WORLD_NAMES + 1
        return self._last_name

    def unread_by(self, name: int) -> int:
        """Bytes of the world's stream that this reader has not read, as far as that can be seen."""
        connection = self._named.get(name)
        return connection.unread() if connection is not None else 0

    def has_readers(self, stream_id: int) -> bool:
        """Does anybody listen, or is about to?"""
        return stream_id in self._readers or stream_id in self._awaited

    def expect(self, stream_id: int) -> None:
        """Keep what is published until the reader that asked for the token has connected, but not for long."""
        if stream_id not in self._readers and stream_of(stream_id) != WORLD_STREAM:
            self._awaited[stream_id] = _Awaited()

    def publish(self, stream_id: int, parts: Sequence[Part], *, lossy: bool = False) -> None:
        """Send one message to every reader of the stream.

        Args:
            parts: header and body buffers; they may be reused after the call.
            lossy: skip readers that lag by some messages (asynchronous mode) instead of queueing for them.
        """
        readers = self._readers.get(stream_id)
        if not readers:
            self._keep(stream_id, parts)
            return
        framed = [SIZE.pack(sum(memoryview(part).nbytes for part in parts)), *parts]
        for connection in tuple(readers):
            if not (lossy and connection.waiting >= LAGGING_MESSAGES):
                connection.send(framed)

    def _keep(self, stream_id: int, parts: Sequence[Part]) -> None:
        awaited = self._awaited.get(stream_id)
        if awaited is None:
            return
        if time.monotonic() > awaited.until_s:
            del self._awaited[stream_id]
            return
        awaited.keep([SIZE.pack(sum(memoryview(part).nbytes for part in parts)), *parts])

    def send_to(self, connection: Connection, parts: Sequence[Part]) -> None:
        """Send one message to one reader."""
        connection.send([SIZE.pack(sum(memoryview(part).nbytes for part in parts)), *parts])

    def close_stream(self, stream_id: int) -> None:
        """Hang up on all readers (the sensor was destroyed)."""
        self._awaited.pop(stream_id, None)
        for connection in self._readers.pop(stream_id, []):
            connection.close()

    def close(self) -> None:
        """Close the port and every stream."""
        self.listener.close()

    def _accepted(self, connection: Connection) -> None:
        received = bytearray()
        timer = self._reactor.call_later(SUBSCRIBE_WAIT_S, connection.close)

        def on_data(data: bytes) -> None:
            received.extend(data[:16])
            if len(received) < 4:
                return
            timer.cancel()
            self._subscribe(int.from_bytes(received[:4], "little"), connection)

        connection.on_data = on_data

    def _subscribe(self, name: int, connection: Connection) -> None:
        stream_id = stream_of(name)
        if not self.is_stream(stream_id):
            connection.close()
            return
        readers = self._readers.setdefault(stream_id, [])
        readers.append(connection)
        closed_by_listener = connection.on_close
        if stream_id == WORLD_STREAM:
            self._named[name] = connection

        def on_close() -> None:
            closed_by_listener()
            if self._named.get(name) is connection:
                del self._named[name]
            if connection in readers:
                readers.remove(connection)
            if not readers and self._readers.get(stream_id) is readers:
                del self._readers[stream_id]

        connection.on_close = on_close
        connection.useful = True
        connection.on_data = ignore  # a reader has nothing more to say
        self.on_subscribed(stream_id, connection)
        awaited = self._awaited.pop(stream_id, None)
        if awaited is not None and awaited.kept:
            connection.send(awaited.kept)
