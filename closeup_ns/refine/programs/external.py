"""External programs as refiners: a folder of pictures goes in, a folder of pictures comes out.

Nothing that the program does can leave a run half done: it works in a temporary folder, is stopped after a time, and
each of its pictures is looked at before it is believed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shlex
import shutil
import signal
import struct
import subprocess
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from closeup_ns.atomic import write_json
from closeup_ns.data.pictures import write_picture
from closeup_ns.errors import RefinerError

INPUT, OUTPUT = "{input}", "{output}"
"""What the folders' paths replace in the command."""
TAIL_BYTES = 2000
"""How much of what a failed program printed its error shows."""
NAME_LENGTH = 80
"""Longest part of a view's name that is kept in a file's name, characters; file systems end at 255 bytes."""
_UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)
"""What Pillow raises for files that are no picture, or a broken one."""

Picture = Float[Tensor, "H W 3"] | Bool[Tensor, "H W"]
"""Written as an 8-bit PNG: RGB in [0, 1], or a mask, True white."""


@dataclass(frozen=True)
class Program:
    """A program that the user named, and how long it may take."""

    template: str
    """The command line with ``{input}`` and ``{output}``; split as a shell would, but no shell runs."""
    timeout: float
    """Seconds, after which it and what it started are killed."""
    option: str
    """Name of the option that holds the command, for messages."""

    def arguments(self) -> list[str]:
        """The command, split.

        Raises:
            RefinerError: it is empty, cannot be split or lacks a placeholder, or the timeout is no time.
        """
        try:
            arguments = shlex.split(self.template)
        except ValueError as error:
            raise RefinerError(f"{self.option} {self.template!r} cannot be split into arguments: {error}") from error
        example = f'for example {self.option} "python fix.py {INPUT} {OUTPUT}"'
        if not arguments:
            raise RefinerError(f"{self.option} is empty: give the command to run, {example}")
        missing = [name for name in (INPUT, OUTPUT) if not any(name in argument for argument in arguments)]
        if missing:
            raise RefinerError(
                f"{self.option} {self.template!r} lacks {' and '.join(missing)}, which become the folders that the "
                f"program reads and writes: {example}"
            )
        if not self.timeout > 0:
            raise RefinerError(f"the timeout of {self.option} must be more than 0 seconds, not {self.timeout}")
        return arguments

    def why_not(self) -> str | None:
        """Why it cannot be run, and what to do, in one line; None where it can. Starts nothing."""
        try:
            program = self.arguments()[0]
        except RefinerError as error:
            return str(error)
        if shutil.which(program) is not None:
            return None
        if os.path.dirname(program):
            if not os.path.isfile(program):
                return f"{self.option}: there is no file {program}; correct its path"
            return (
                f"{self.option}: {program} is not executable; write its interpreter before it, such as "
                f'"python {program} ...", or make it executable'
            )
        return f"{self.option}: there is no program {program!r} on PATH; install it, or write its full path"

    def treat(
        self, files: Mapping[str, Picture | Mapping[str, Any]], expected: Mapping[str, tuple[int, int]]
    ) -> dict[str, Float[Tensor, "H W 3"] | str]:
        """Runs the program on ``files`` and reads back what is ``expected``.

        Args:
            files: path inside the input folder -> a picture, or content for a JSON file.
            expected: name of each PNG in the output folder -> its (height, width) in pixels.

        Returns:
            For each expected name the picture (float32, CPU, in [0, 1]), or one sentence that says why there is none.

        Raises:
            RefinerError: the program cannot be run, takes too long, or ends with an error.
        """
        fault = self.why_not()
        if fault is not None:
            raise RefinerError(fault)
        with tempfile.TemporaryDirectory(prefix="closeup-", ignore_cleanup_errors=True) as name:
            # Resolved now: a program that puts a link in place of the folder must not lead the reading elsewhere.
            root = Path(name).resolve()
            source, sink = root / "input", root / "output"
            source.mkdir()
            sink.mkdir()
            for relative, content in files.items():
                if isinstance(content, Mapping):
                    write_json(source / relative, content)
                else:
                    write_picture(source / relative, content, compress_level=1)
            command = [part.replace(INPUT, str(source)).replace(OUTPUT, str(sink)) for part in self.arguments()]
            self._run(command, root)
            return {name: _read(sink, name, size) for name, size in expected.items()}

    def _run(self, command: Sequence[str], root: Path) -> None:
        """The program from its start to its end, in a process group of its own; what it prints goes into a file."""
        log = root / "printed.txt"
        with open(log, "wb") as printed:
            try:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=printed,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                hint = "; write its interpreter before it" if error.errno == errno.ENOEXEC else ""
                raise RefinerError(f"{self.option}: {command[0]} cannot be started: {error}{hint}") from error
        try:
            code = process.wait(self.timeout)
        except subprocess.TimeoutExpired as error:
            raise RefinerError(
                f"{self.option}: {command[0]} was stopped after {self.timeout:g} s (raise its timeout if it only needs "
                f"longer){_tail(log)}"
            ) from error
        finally:
            if process.returncode is None:
                # Its children too: they would hold the GPU. The group exists as long as its leader is not waited for.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if code != 0:
            ended = f"was ended by signal {-code}" if code < 0 else f"failed with exit code {code}"
            raise RefinerError(f"{self.option}: {command[0]} {ended}{_tail(log)}")


def file_names(names: Sequence[str]) -> list[str]:
    """A file name without suffix for each view's name: plain characters, no folders, no two alike."""
    taken: set[str] = set()
    result = []
    for name in names:
        plain = re.sub(r"[^A-Za-z0-9_-]+", "_", name)[:NAME_LENGTH].strip("_") or "view"
        free, number = plain, 1
        while free.lower() in taken:  # some file systems do not tell capitals apart
            number += 1
            free = f"{plain}_{number}"
        taken.add(free.lower())
        result.append(free)
    return result


def _read(folder: Path, name: str, size: tuple[int, int]) -> Tensor | str:
    """A picture of the output folder, or why there is none."""
    path = folder / name
    shown = f"the program's output/{name}"
    try:
        if not Path(os.path.realpath(path)).is_relative_to(folder):  # unlike resolve(), at peace with a link to itself
            return f"{shown} is a link that leaves the output folder"
        if not path.is_file():
            present = ", ".join(sorted(entry.name for entry in folder.iterdir())[:5])
            return f"the program wrote no output/{name} (in output/: {present or 'nothing'})"
        with Image.open(path, formats=["PNG"]) as image:
            if image.mode != "RGB":
                return f"{shown} has mode {image.mode}; it must be an 8-bit RGB picture"
            width, height = image.size
            if (height, width) != size:
                return f"{shown} is {width} x {height} pixels; it must be {size[1]} x {size[0]}"
            levels = np.array(image)
    except _UNREADABLE as error:
        return f"{shown} cannot be read as a PNG: {error}"
    return torch.from_numpy(levels).float() / 255


def _tail(log: Path) -> str:
    """The end of what the program printed, for an error message."""
    with open(log, "rb") as printed:
        printed.seek(max(0, os.fstat(printed.fileno()).st_size - TAIL_BYTES))
        text = printed.read().decode("utf8", errors="replace").strip()
    return f"; the end of what it printed:\n{text}" if text else "; it printed nothing"
