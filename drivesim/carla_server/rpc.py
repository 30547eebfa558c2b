"""msgpack-rpc as CARLA's client speaks it: requests in, wrapped replies out.

Request `[0, id, method, [[asynchronous], arg, ...]]`, response `[1, id, error, result]`. A result is wrapped:
a value as `[[1, value]]`, its failure as `[[0, [text]]]`; a void call as `[[false]]`, its failure as
`[[true, [text]]]`; apply_batch alone answers with a bare list.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgpack

from drivesim.carla_server.connection import Connection
from drivesim.carla_server.framing import NOTHING, Inbox

log = logging.getLogger(__name__)

REPLY_LIMIT = 256 << 20
UNREAD_LIMIT = 1 << 20  # bytes of answers; whoever has not read these is not listened to meanwhile
APART = 1 << 14  # bytes from which an answer is sent without copying it behind its head
COMPLAINTS = 100
SHARE_S = 0.001  # of a turn, for one connection
VALUE, VOID, BARE = range(3)

Args = list[Any]


class Refusal(Exception):  # noqa: N818
    """A call that is answered with an error; the client raises RuntimeError with this text."""


class Deferred:
    """Returned by a handler that answers later: keep it, call `reply` with the value once."""

    __slots__ = ("_kind", "_message_id", "_peer")

    def __init__(self, peer: Peer, message_id: int, kind: int) -> None:
        self._peer = peer
        self._message_id = message_id
        self._kind = kind

    def reply(self, value: Any) -> None:
        """Send the answer; harmless if the client has gone."""
        self._peer.answer(self._message_id, self._kind, value)

    def refuse(self, text: str) -> None:
        """Answer with an error; harmless if the client has gone."""
        self._peer.refuse(self._message_id, self._kind, text)


@dataclass(frozen=True)
class Call:
    """One method of the table: its handler and how its answer is wrapped."""

    kind: int  # VALUE, VOID or BARE
    handler: Callable[..., Any]  # (*args), or (peer, *args)
    peer: bool = False  # does the handler want to know who calls?
    real: bool = True  # False: answered with a refusal, or accepted without effect
    note: str = ""


_complaints = itertools.count()
_packer = msgpack.Packer(use_bin_type=True, unicode_errors="surrogateescape", autoreset=True)
pack = _packer.pack


class Packed:
    """A value that is msgpack already (cached answers)."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data


def encode(value: Any) -> bytes:
    """msgpack bytes of a value, or those a `Packed` holds."""
    return value.data if isinstance(value, Packed) else bytes(pack(value))


def _complain(text: str, *arguments: Any) -> None:
    """Log what a peer did wrong, but not without end."""
    number = next(_complaints)
    if number < COMPLAINTS:
        log.warning(text, *arguments)
    elif number == COMPLAINTS:
        log.warning("more of this kind is not logged")


class Peer:
    """One client's RPC connection: decodes requests, calls the table in order, sends answers."""

    def __init__(self, connection: Connection, table: Mapping[str, Call]) -> None:
        self.connection = connection
        self._table = table
        self._inbox = Inbox()
        self._waits = False  # for the next turn
        self._message_id = 0
        self._kind = VALUE
        self.world_name = 0  # under which this client reads the world's stream
        connection.on_data = self._received
        connection.on_drained = self._work

    @property
    def host(self) -> str:
        """The client's address."""
        return self.connection.peer_host

    def defer(self) -> Deferred:
        """Take over the answer of the call that is being handled; return it from the handler."""
        return Deferred(self, self._message_id, self._kind)

    def answer(self, message_id: int, kind: int, value: Any) -> None:
        """Send a successful answer."""
        if kind == VALUE:
            self._send(message_id, b"\x91\x92\x01", encode(value))
        elif kind == VOID:
            self._send(message_id, b"\x91\x91\xc2", b"")
        else:
            self._send(message_id, b"", encode(value))

    def _received(self, data: bytes) -> None:
        self._inbox.feed(data)
        self._work()

    def _work(self) -> None:
        """Handle what has come, for as long as this connection's share of the turn lasts and its answers are read."""
        try:
            if not self._waits and not self._handle_some():
                self.connection.resume()
        except Exception as error:  # whatever the bytes are, only this connection ends
            _complain("closing a connection of %s: not CARLA's protocol (%s)", self.host, error or type(error).__name__)
            self.connection.close()
        if len(self._inbox) != self.connection.unhandled:
            self.connection.unhandled = len(self._inbox)
            self.connection.account()

    def _handle_some(self) -> bool:
        """Handle messages; True where it has to stop although there may be more."""
        connection, until_s = self.connection, time.monotonic() + SHARE_S
        while connection.open:
            if connection.backlog > UNREAD_LIMIT:
                connection.pause()  # until it is drained
                return True
            message = self._inbox.take()
            if message is NOTHING:
                return False
            self._dispatch(message)
            if len(self._inbox) and time.monotonic() > until_s:
                connection.pause()
                self._waits = True
                connection.reactor.post_errand(self._go_on)
                return True
        return False

    def _go_on(self) -> None:
        self._waits = False
        if self.connection.open:
            self._work()

    def _dispatch(self, message: Any) -> None:
        if not (isinstance(message, list) and len(message) == 4 and message[0] == 0):
            raise ValueError("a message that is no request")
        _, message_id, method, params = message
        if not (type(message_id) is int and 0 <= message_id < 1 << 32 and isinstance(params, list)):
            raise ValueError("a malformed request")
        call = self._table.get(method) if isinstance(method, str) else None
        if call is None:
            _complain("unknown method %.80r", method)
            self._reply(message_id, pack(f"unknown method {str(method)[:80]}"), b"\xc0")
            return
        self.connection.useful = True
        self._message_id, self._kind = message_id, call.kind
        try:
            value = call.handler(self, *params[1:]) if call.peer else call.handler(*params[1:])
        except Refusal as refusal:
            self.refuse(message_id, call.kind, str(refusal))
        except (TypeError, ValueError, IndexError, KeyError, OverflowError, AttributeError) as error:
            log.debug("malformed arguments of %s", method, exc_info=True)
            self.refuse(message_id, call.kind, f"{method}: malformed arguments ({error})")
        except Exception as error:
            log.exception("%s failed", method)
            self.refuse(message_id, call.kind, f"{method}: failed in the server ({type(error).__name__}: {error})")
        else:
            if not isinstance(value, Deferred):
                self.answer(message_id, call.kind, value)

    def refuse(self, message_id: int, kind: int, text: str) -> None:
        """Send an error, wrapped as the kind of call has it."""
        body = bytes(pack([text]))
        if kind == VALUE:
            self._send(message_id, b"\x91\x92\x00", body)
        elif kind == VOID:
            self._send(message_id, b"\x91\x92\xc3", body)
        else:
            self._reply(message_id, pack(text), b"\xc0")

    def _send(self, message_id: int, wrapper: bytes, body: bytes) -> None:
        self._reply(message_id, b"\xc0", wrapper, body)

    def _reply(self, message_id: int, error: bytes, result: bytes, body: bytes = b"") -> None:
        head = b"\x94\x01" + pack(message_id) + error + result
        self.connection.send([head, body] if len(body) > APART else [head + body], REPLY_LIMIT)
