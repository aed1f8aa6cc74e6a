"""A command with nerfstudio's viewer, running."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path

from tests.integration.commands import forked

PATIENCE = 240.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def serving(name: str, *arguments: object, cwd: Path) -> Iterator[int]:
    """The port at which the command's viewer answers; it must still run at the end, without a traceback."""
    port = free_port()
    call = (*arguments, "--viewer.websocket-port", port, "--viewer.websocket-host", "127.0.0.1")
    with forked(name, *call, cwd=cwd) as (process, log):
        wait_until_it_answers(port, process, log)
        yield port
        assert process.is_alive(), log.read_text(errors="replace")
        assert "Traceback" not in log.read_text(errors="replace"), log.read_text(errors="replace")


def wait_until_it_answers(port: int, process: BaseProcess, log: Path) -> None:
    """Wait for the viewer of a running command."""
    deadline = time.monotonic() + PATIENCE
    while not _answers(port):
        assert process.is_alive() and time.monotonic() < deadline, log.read_text(errors="replace")
        time.sleep(0.3)


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True
