"""Worker processes: handed episodes, watched, replaced when they die."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import multiprocessing.connection
import os
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

from drivesim.config import to_dict
from drivesim.suite.bench import work
from drivesim.suite.files import Job

ATTEMPTS = 2
EPISODE_WALL_S = 900.0
_ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


class Crew:
    """Worker processes and what each is at."""

    def __init__(self, out: Path, size: int, carla: tuple[str, int] | None, checkpoints: dict[str, Path]) -> None:
        self._out, self._size, self._carla, self._checkpoints = out, size, carla, checkpoints
        self._context = multiprocessing.get_context("spawn")

    def run(self, jobs: list[Job]) -> Generator[tuple[Job, dict[str, Any]], None, None]:
        """Yield every job with its reply, {"error", "wall_s"}, as they come."""
        waiting = [(job, 1) for job in jobs]
        given = self._out, self._carla, self._checkpoints
        crew = [_Worker(self._context, number, *given) for number in range(self._size)]
        try:
            while waiting or any(worker.job is not None for worker in crew):
                for worker in crew:
                    if worker.job is None and waiting:
                        worker.give(*waiting.pop(0))
                for worker, reply in _replies(crew):
                    assert worker.job is not None
                    job, attempt = worker.job, worker.attempt
                    worker.job = None
                    if reply["error"] and attempt < ATTEMPTS and not reply.get("hopeless"):
                        waiting.insert(0, (job, attempt + 1))
                    else:
                        yield job, reply
        finally:
            for worker in crew:
                worker.dismiss()


def _replies(crew: list[_Worker]) -> list[tuple[_Worker, dict[str, Any]]]:
    """Wait until a worker answers, dies or is overdue."""
    busy = [worker for worker in crew if worker.job is not None]
    multiprocessing.connection.wait([worker.pipe for worker in busy], timeout=1.0)
    found = []
    for worker in busy:
        reply = worker.reply()
        if reply is not None:
            found.append((worker, reply))
    return found


class _Worker:
    """One process, started when it is given work, and again after it died."""

    def __init__(
        self, context: Any, number: int, out: Path, carla: tuple[str, int] | None, checkpoints: dict[str, Path]
    ) -> None:
        self._context, self._number, self._out = context, number, out
        self._carla, self._checkpoints = carla, {name: str(path) for name, path in checkpoints.items()}
        self._process: Any = None
        self.pipe: Any = None
        self.job: Job | None = None
        self.attempt = 0
        self._since_s = 0.0

    def give(self, job: Job, attempt: int) -> None:
        """Send it a job."""
        if self._process is None or not self._process.is_alive():
            self._start()
        self.job, self.attempt, self._since_s = job, attempt, time.monotonic()
        path = str(job.path(self._out))
        order = {"scenario": to_dict(job.scenario), "planner": job.planner, "seed": job.seed, "path": path}
        with contextlib.suppress(OSError):  # it died meanwhile: `reply` will say so
            self.pipe.send_bytes(json.dumps(order).encode())

    def reply(self) -> dict[str, Any] | None:
        """Its answer, or what stands for it when it died or hangs; None while it works."""
        wall_s = time.monotonic() - self._since_s
        try:
            if self.pipe.poll():
                answer: dict[str, Any] = json.loads(self.pipe.recv_bytes())
                return {**answer, "wall_s": wall_s}
        except (EOFError, OSError):
            pass
        else:
            if self._process.is_alive() and wall_s < EPISODE_WALL_S:
                return None
        cause = f"no answer in {EPISODE_WALL_S:.0f} s" if wall_s >= EPISODE_WALL_S else "the worker process died"
        self._end()
        return {"error": f"{cause}; see logs/worker-{self._number}.log", "wall_s": wall_s}

    def dismiss(self) -> None:
        """Let it end in peace, or end it."""
        if self._process is None:
            return
        if self.job is None:
            with contextlib.suppress(OSError):
                self.pipe.send_bytes(b"null")
            self._process.join(10.0)
        self._end()

    def _end(self) -> None:
        if self._process is not None and self._process.is_alive():
            self._process.terminate()
            self._process.join(5.0)
            if self._process.is_alive():
                self._process.kill()
                self._process.join(5.0)
        if self.pipe is not None:
            self.pipe.close()
        self._process = self.pipe = None

    def _start(self) -> None:
        if self._process is not None:
            self._end()
        self.pipe, theirs = self._context.Pipe()
        log = self._out / "logs" / f"worker-{self._number}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        before = {name: os.environ.get(name) for name in _ONE_THREAD}
        os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))
        try:
            self._process = self._context.Process(
                target=work, args=(theirs, str(log), self._carla, self._checkpoints), daemon=True
            )
            self._process.start()
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
        theirs.close()
