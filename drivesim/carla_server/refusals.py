"""Calls that are answered with a clear text: what was called, and why it is not served."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from drivesim.carla_server.rpc import Call, Refusal


@dataclass(frozen=True)
class Refused:
    """A handler that always refuses."""

    method: str
    why: str

    def __call__(self, *_: Any) -> None:
        """Refuse.

        Raises:
            Refusal: always.
        """
        raise Refusal(f"{self.method} is not served: {self.why}")


def refused(method: str, kind: int, why: str) -> Call:
    """The table's entry of a method that is not served."""
    return Call(kind, Refused(method, why), real=False, note=why)
