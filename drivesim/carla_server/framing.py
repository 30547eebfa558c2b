"""Finds where a msgpack message ends before anything of it is decoded, so that hostile bytes cost no memory.

A decoder that reads a stream believes every length it meets: some kilobytes of nested array heads make it reserve
gigabytes. A message that is known to be whole cannot announce more than it brings.
"""

from __future__ import annotations

from typing import Any

import msgpack
import numpy as np
from numba import njit
from numpy.typing import NDArray

MESSAGE_LIMIT = 64 << 20  # bytes; OpenDRIVE texts are the longest
ELEMENT_LIMIT = 6_000_000  # a texture of 1024 x 1024 colours has 5.2 million
DEPTH_LIMIT = 48
SMALL = 4096  # bytes within which no announced length can do harm: the decoder believes none beyond them
NOTHING = object()
WHOLE, PARTIAL, BAD = 0, 1, 2
STATUS, DEPTH, ELEMENTS, NEEDED, LEVELS = 0, 1, 2, 3, 4


def fresh_state() -> NDArray[np.int64]:
    """What `scan` keeps of a message between two calls; all zeros before its first byte."""
    return np.zeros(LEVELS + DEPTH_LIMIT, np.int64)


@njit(cache=True)
def _big_endian(data: NDArray[np.uint8], at: int, size: int) -> int:
    value = 0
    for k in range(size):
        value = (value << 8) | int(data[at + k])
    return value


@njit(cache=True)
def _token(data: NDArray[np.uint8], at: int) -> tuple[int, int, int]:
    """Bytes of the head, bytes of payload after it, and elements in it; a head of 0 bytes is not of CARLA's client."""
    tag = int(data[at])
    if tag <= 0x7F or tag >= 0xE0 or tag == 0xC0 or tag == 0xC2 or tag == 0xC3:
        return 1, 0, 0
    if tag <= 0x8F:
        return 1, 0, 2 * (tag & 15)
    if tag <= 0x9F:
        return 1, 0, tag & 15
    if tag <= 0xBF:
        return 1, tag & 31, 0
    if tag == 0xCA or tag == 0xCB:
        return 5 if tag == 0xCA else 9, 0, 0
    if 0xCC <= tag <= 0xD3:
        return 1 + (1 << ((tag - 0xCC) & 3)), 0, 0
    width = 0
    if 0xC4 <= tag <= 0xC6:
        width = 1 << (tag - 0xC4)
    elif 0xD9 <= tag <= 0xDB:
        width = 1 << (tag - 0xD9)
    elif 0xDC <= tag <= 0xDF:
        width = 2 << ((tag - 0xDC) & 1)
    if width == 0:
        return 0, 0, 0
    if at + 1 + width > len(data):
        return 1 + width, 0, 0
    size = _big_endian(data, at + 1, width)
    if tag < 0xDC:
        return 1 + width, size, 0
    return 1 + width, 0, size if tag < 0xDE else 2 * size


@njit(cache=True)
def scan(data: NDArray[np.uint8], at: int, state: NDArray[np.int64]) -> int:
    """Go on from `at` to the end of the message, or as far as there is data.

    Args:
        data: (n,) bytes received.
        at: where to go on: the message's first byte, or what the last call returned.
        state: of `fresh_state`; changed. STATUS then says WHOLE, PARTIAL (until data reaches NEEDED) or BAD.

    Returns:
        The end of the message if it is whole, else where to go on.
    """
    while True:
        if at >= len(data):
            state[STATUS], state[NEEDED] = PARTIAL, at + 1
            return at
        head, payload, elements = _token(data, at)
        if head == 0 or payload > MESSAGE_LIMIT or elements > ELEMENT_LIMIT:
            state[STATUS] = BAD
            return at
        if at + head + payload > len(data):
            state[STATUS], state[NEEDED] = PARTIAL, at + head + payload
            return at
        at += head + payload
        state[ELEMENTS] += elements
        depth = state[DEPTH]
        if elements > 0:
            if depth >= DEPTH_LIMIT or state[ELEMENTS] > ELEMENT_LIMIT:
                state[STATUS] = BAD
                return at
            state[LEVELS + depth] = elements
            state[DEPTH] = depth + 1
            continue
        while depth > 0:
            state[LEVELS + depth - 1] -= 1
            if state[LEVELS + depth - 1] > 0:
                break
            depth -= 1
        state[DEPTH] = depth
        if depth == 0:
            state[STATUS] = WHOLE
            return at


def decode(message: bytes | bytearray) -> Any:
    """The value of one whole msgpack message.

    Raises:
        ValueError: it is not whole, or not all.
    """
    return msgpack.unpackb(message, raw=False, unicode_errors="surrogateescape", strict_map_key=False, use_list=True)


class Inbox:
    """Bytes of one connection, handed out message by message."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._at = 0
        self._state = fresh_state()

    def __len__(self) -> int:
        return len(self._data)

    def feed(self, data: bytes) -> None:
        """Add what was received."""
        self._data += data

    def take(self) -> Any:
        """The next message's value, or NOTHING until more has come.

        Raises:
            ValueError: see `next`; or what is whole is no msgpack after all.
        """
        data = self._data
        if not data:
            return NOTHING
        if len(data) <= SMALL and not self._state[NEEDED]:  # the common case: one small message, whole
            try:
                value = decode(data)
                data.clear()
                return value
            except msgpack.ExtraData as more:
                del data[: len(data) - len(more.extra)]
                return more.unpacked
            except ValueError:
                pass  # not whole yet, or never: the scanner tells
        message = self.next()
        return NOTHING if message is None else decode(message)

    def next(self) -> bytes | None:
        """The next whole message, or None until more has come.

        Raises:
            ValueError: no message of CARLA's client begins like this, or it is too long.
        """
        if len(self._data) < self._state[NEEDED] or not self._data:
            return None
        self._at = scan(np.frombuffer(self._data, np.uint8), self._at, self._state)
        if self._state[STATUS] == BAD or max(self._at, self._state[NEEDED]) > MESSAGE_LIMIT:
            raise ValueError("an impossible length, type or depth")
        if self._state[STATUS] == PARTIAL:
            return None
        message = bytes(memoryview(self._data)[: self._at])
        del self._data[: self._at]
        self._at = 0
        self._state[:] = 0
        return message


def rehearse() -> None:
    """Compile what a first message would have to wait for."""
    inbox = Inbox()
    inbox.feed(b"\x91\xa1a")
    inbox.next()
