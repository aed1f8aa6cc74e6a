"""One background thread for jobs that take longer than a frame. Callbacks of the viewer hand them over."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Worker:
    """Runs jobs one after another. A job replaces a waiting one of the same name: only the latest one counts."""

    def __init__(
        self, failed: Callable[[str, Exception], None], idle: Callable[[], None], idle_seconds: float = 1.0
    ) -> None:
        """
        Args:
            failed: told the name of a job that raised, and what; the thread goes on.
            idle: called about every ``idle_seconds`` between jobs, however many of them there are.
        """
        self._failed, self._idle, self._idle_seconds = failed, idle, idle_seconds
        self._jobs: dict[str, Callable[[], None]] = {}
        self._changed = threading.Condition()
        self._stopped = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread; it ends with the process, or at `stop`."""
        self._thread = threading.Thread(target=self._run, name="closeup-viewer", daemon=True)
        self._thread.start()

    def submit(self, name: str, job: Callable[[], None]) -> None:
        """Do ``job`` when its turn comes. Returns at once."""
        with self._changed:
            self._jobs[name] = job
            self._changed.notify_all()

    def stop(self) -> None:
        """End the thread after the job under way."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        looked = float("-inf")
        while True:
            with self._changed:
                left = looked + self._idle_seconds - time.monotonic()
                self._changed.wait_for(lambda: self._jobs or self._stopped, max(left, 0.0))
                if self._stopped:
                    return
                name = next(iter(self._jobs), "") if time.monotonic() < looked + self._idle_seconds else ""
                job = self._jobs.pop(name) if name else self._idle
            try:
                job()
            except Exception as error:  # whatever it is, it belongs on the panel, and the next click must still work
                self._failed(name or "refresh", error)
            if not name:
                looked = time.monotonic()
