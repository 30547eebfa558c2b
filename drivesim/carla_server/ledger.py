"""What all connections together hold in memory, and who gives way when that is too much."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Protocol

HELD_LIMIT = 512 << 20


class Holder(Hashable, Protocol):
    """Somebody who holds bytes for a peer that is slow to read, or slow to finish its message."""

    def close(self) -> None:
        """Let go of them."""


class Ledger:
    """Bytes by holder; the one that holds most is closed when the sum passes the limit."""

    def __init__(self, limit: int = HELD_LIMIT) -> None:
        self.limit = limit
        self.total = 0
        self._held: dict[Holder, int] = {}

    def note(self, holder: Holder, size: int) -> None:
        """Say how many bytes one holds now."""
        self.total += size - self._held.get(holder, 0)
        if size:
            self._held[holder] = size
        else:
            self._held.pop(holder, None)
        while self.total > self.limit:
            worst = max(self._held, key=lambda one: self._held[one])
            self.note(worst, 0)
            worst.close()
