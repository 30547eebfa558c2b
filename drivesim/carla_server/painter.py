"""Threads that draw pictures and cast rays, so that calls are answered meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

Task = Callable[[], None]


class Painter:
    """Runs the tasks of one tick's sensors on threads of its own; one tick at a time."""

    def __init__(self, post: Callable[[Callable[[], None]], None], threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="painter")
        self.threads = threads
        self._post = post
        self._jobs: list[Future[None]] = []
        self._done: Callable[[], None] | None = None

    def start(self, tasks: Sequence[Task], done: Callable[[], None]) -> None:
        """Begin the tasks; `done` runs on the reactor's thread afterwards, or from `finish`."""
        self.finish()
        self._done = done
        if not tasks:
            self._post(lambda: self.finish() if self._done is done else None)
        self._jobs = [self._pool.submit(task) for task in tasks]
        left = [len(self._jobs)]

        def ended(_: Future[None]) -> None:
            left[0] -= 1  # callbacks of one tick may race here: then `finish` of the next tick delivers
            if left[0] == 0:
                self._post(lambda: self.finish() if self._done is done else None)

        for job in self._jobs:
            job.add_done_callback(ended)

    def finish(self) -> None:
        """Wait for the work that is under way, if any, and deliver it."""
        done, self._done = self._done, None
        jobs, self._jobs = self._jobs, []
        if done is None:
            return
        for job in jobs:
            job.result()
        done()

    def close(self) -> None:
        """End the threads."""
        self._done = None
        self._pool.shutdown(wait=True, cancel_futures=True)
