"""Talks to a client's Traffic Manager (TM) over the rpc port that it opens itself: plain msgpack-rpc, no metadata.

Nothing here decides; `guard.TrafficManagers` does. All functions block, and run on threads of their own.
"""

from __future__ import annotations

import fcntl
import socket
import sys
import termios
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import msgpack

REACH_S = 5.0  # patience with a port that does not answer
PROMPT_S = 0.25  # a process whose threads answer within this, time after time, is not starved
ROUNDS, ROUND_S = 6, 0.02


class Doorbell:
    """One connection to the rpc port of a TM.

    Raises:
        OSError: nobody listens there, or the TM is gone.
    """

    def __init__(self, host: str, port: int) -> None:
        self._sock = socket.create_connection((host, port), REACH_S)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._unpacker = msgpack.Unpacker(max_buffer_size=1 << 16)

    def __enter__(self) -> Doorbell:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._sock.close()

    def call(self, method: str, *arguments: Any) -> None:
        """Call and wait for the answer, whatever it says."""
        self._sock.sendall(msgpack.packb([0, 1, method, list(arguments)]))
        while True:
            data = self._sock.recv(4096)
            if not data:
                raise ConnectionError("the Traffic Manager hung up")
            self._unpacker.feed(data)
            for _ in self._unpacker:
                return

    def await_fair_share(self) -> None:
        """Return when its process has answered promptly `ROUNDS` times in a row.

        A scheduler that lets one of its threads run so often has let all its runnable threads run: whichever of them
        then still does nothing is not slow, it waits for something. A stopped or starved process fails the test.
        """
        prompt = 0
        while prompt < ROUNDS:
            asked_s = time.monotonic()
            self.call("health_check_remote_TM")
            prompt = prompt + 1 if time.monotonic() - asked_s < PROMPT_S else 0
            time.sleep(ROUND_S)

    def await_end_of_step(self) -> None:
        """Return when the TM is between two steps: this call needs the lock that a step holds, and does nothing."""
        self.call("unregister_vehicle", [])

    def wake(self) -> None:
        """Make the TM leave and enter synchronous mode: leaving notifies the condition that it sleeps on."""
        self.call("set_synchronous_mode", False)
        self.call("set_synchronous_mode", True)


def unread_bytes(sock: socket.socket) -> int:
    """Bytes sent on a connection that the other end has not read, as far as that can be seen.

    Those on their way count, which Linux tells of any TCP socket; and, where the other end is on this machine (IPv4),
    those that wait in its socket.
    """
    try:
        waiting = fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4))
        ours, theirs = sock.getsockname()[:2], sock.getpeername()[:2]
        lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    except OSError:
        return 0
    on_their_way = int.from_bytes(waiting, sys.byteorder)
    wanted = (_hexadecimal(theirs), _hexadecimal(ours))
    for line in lines:
        fields = line.split()
        if (fields[1], fields[2]) == wanted:
            return on_their_way + int(fields[4].partition(":")[2], 16)
    return on_their_way


def _hexadecimal(address: tuple[str, int]) -> str:
    """As /proc/net/tcp writes it: the address as a number of the machine's own byte order."""
    try:
        packed = socket.inet_aton(address[0])
    except OSError:
        return ""
    return f"{int.from_bytes(packed, sys.byteorder):08X}:{address[1]:04X}"
