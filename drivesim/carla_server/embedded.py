"""A server in a process of its own, for as long as a `with` block lasts."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import IO

STOP_LIMIT_S = 5.0
READY = "serving "


class EmbeddedServer:
    """Starts `python -m drivesim.carla_server`; the process ends with the block, or with its parent."""

    def __init__(
        self, town_name: str = "Town02", *, host: str = "127.0.0.1", port: int = 0, seed: int = 0, capacity: int = 512,
        draw_ahead: bool = True, recordings: Path | None = None, reap: bool = False,
    ) -> None:  # fmt: skip
        """Say what to serve; nothing starts yet.

        Args:
            town_name: one of drivesim.town.towns.KNOWN_TOWNS.
            host: address to bind.
            port: of the calls; 0 for any free one.
            seed: of the town.
            capacity: most vehicles, walkers and props at a time.
            draw_ahead: be ready to draw before the block begins (the very first time on a machine takes minutes).
            recordings: folder of the recorder's files; in the user's cache when None.
            reap: destroy a client's actors when its connection ends.
        """
        self._arguments = ["--town", town_name, "--host", host, "--port", str(port), "--seed", str(seed),
                           "--capacity", str(capacity), "--until-stdin-closes"]  # fmt: skip
        self._arguments += ["--draw-ahead"] if draw_ahead else []
        self._arguments += ["--reap"] if reap else []
        self._arguments += ["--recordings", str(recordings)] if recordings is not None else []
        self.host = host
        self.port = port
        self.process: subprocess.Popen[str] | None = None

    def __enter__(self) -> tuple[str, int]:
        """Start it and wait until it listens; host and port.

        Raises:
            RuntimeError: it ended instead (an unknown town, a port in use); the text is its own.
        """
        command = [sys.executable, "-m", "drivesim.carla_server", *self._arguments]
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)
        line = _first_line(self.process.stdout)
        if not line.startswith(READY):
            self.stop()
            raise RuntimeError(f"the embedded server did not start: {line.strip() or 'see its messages above'}")
        self.host, port = line[len(READY) :].split()[:2]
        self.port = int(port)
        return self.host, self.port

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the process; harmless if it has ended."""
        process, self.process = self.process, None
        if process is None:
            return
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        try:
            process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _first_line(stream: IO[str] | None) -> str:
    return stream.readline() if stream is not None else ""
