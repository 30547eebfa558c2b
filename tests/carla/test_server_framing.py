"""Where messages end: the scanner agrees with msgpack, byte by byte, and believes no length."""

from __future__ import annotations

import random
import resource

import msgpack
import pytest

from drivesim.carla_server.framing import ELEMENT_LIMIT, NOTHING, Inbox
from drivesim.carla_server.ledger import Ledger


def value(rng: random.Random, depth: int = 0) -> object:
    kind = rng.randrange(10 if depth < 6 else 7)
    if kind == 0:
        return rng.choice([None, True, False])
    if kind == 1:
        return rng.choice([0, 127, 128, -1, -33, 255, 2**16, 2**32, 2**63, -(2**15), -(2**31), -(2**63)])
    if kind in (2, 3):
        return rng.uniform(-1e9, 1e9)
    if kind == 4:
        return "s" * rng.choice([0, 1, 31, 32, 255, 256, 65535, 65536])
    if kind in (5, 6):
        return bytes(rng.choice([0, 1, 255, 256, 70000]))
    if kind == 7:
        return {str(k): value(rng, depth + 1) for k in range(rng.choice([0, 1, 15, 16]))}
    return [value(rng, depth + 1) for _ in range(rng.choice([0, 1, 2, 15, 16, 40 if depth == 0 else 3]))]


def test_it_ends_where_msgpack_ends():
    rng = random.Random(3)
    values = [value(rng) for _ in range(200)]
    packer = msgpack.Packer(use_single_float=False)
    data = b"".join(packer.pack(v) for v in values) + msgpack.packb(1.5, use_single_float=True)
    inbox, decoding, found, decoded = Inbox(), Inbox(), [], []
    at = 0
    while at < len(data):
        size = rng.choice([1, 2, 7, 300, 5000, 100_000])
        inbox.feed(data[at : at + size])
        decoding.feed(data[at : at + size])
        at += size
        while (message := inbox.next()) is not None:
            found.append(msgpack.unpackb(message, strict_map_key=False))
        while (one := decoding.take()) is not NOTHING:
            decoded.append(one)
    assert found == decoded == [*values, 1.5] and len(inbox) == len(decoding) == 0


@pytest.mark.parametrize("data", [
    b"\xc1", b"\xc7\x05\x01abcde", b"\xd4\x01\x02", b"\x91" * 100, b"\xdd\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff",
    b"\xc6\x7f\xff\xff\xff", b"\xdf\x7f\xff\xff\xff",
])  # fmt: skip
def test_impossible_messages_are_refused_at_once(data):
    inbox = Inbox()
    inbox.feed(data)
    with pytest.raises(ValueError, match="impossible"):
        inbox.next()


def test_nested_heads_reserve_nothing():
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    inbox = Inbox()
    inbox.feed(b"\xdd\x00\x0f\xff\xff" * 40)  # forty times a million elements
    with pytest.raises(ValueError, match="impossible"):
        inbox.next()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 20_000 and ELEMENT_LIMIT < 2**24


def test_who_holds_most_gives_way():
    class Holder:
        def __init__(self) -> None:
            self.open = True

        def close(self) -> None:
            self.open = False
            ledger.note(self, 0)

    ledger = Ledger(limit=100)
    small, big, last = Holder(), Holder(), Holder()
    ledger.note(small, 30)
    ledger.note(big, 60)
    ledger.note(last, 20)
    assert (small.open, big.open, last.open) == (True, False, True) and ledger.total == 50
    ledger.note(small, 0)
    assert ledger.total == 20
