"""Small JSON and YAML files into dataclasses: whatever is wrong with one is an error with file, place and remedy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from closeup_ns.errors import CloseupError, DataError

T = TypeVar("T")

CLOSED = ConfigDict(extra="forbid", allow_inf_nan=False)
"""For files that people write: a key that does not exist is an error, and so are NaN and infinity."""
OPEN = ConfigDict(extra="ignore", allow_inf_nan=False)
"""For files that programs write: further keys are passed over."""
MOST_BYTES = 64 * 2**20
"""No such file is larger."""


def read_as(kind: Any, path: Path, remedy: str, error: type[CloseupError] = DataError) -> Any:
    """The JSON or YAML file at ``path`` as ``kind`` (`checked`).

    Raises:
        error: it is missing, cannot be decoded, or does not hold what ``kind`` says. ``remedy`` ends the message.
    """
    return checked(kind, read_plain(path, remedy, error), path, remedy, error)


def read_plain(path: Path, remedy: str, error: type[CloseupError] = DataError) -> Any:
    """What a JSON file, or a YAML file (.yaml, .yml) without tags, says. Raises as `read_as` does."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"it is larger than {MOST_BYTES // 2**20} MiB")
        text = path.read_text(encoding="utf8")
        return yaml.safe_load(text) if path.suffix in (".yaml", ".yml") else json.loads(text)
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as problem:
        reason = getattr(problem, "strerror", None) or " ".join(str(problem).split())
        raise error(f"cannot read {path}: {reason}. {remedy}") from problem


def checked(kind: type[T] | Any, content: Any, where: object, remedy: str, error: type[CloseupError] = DataError) -> T:
    """``content`` as ``kind``: a dataclass or anything else that pydantic knows, nested ones included.

    Raises:
        error: with ``where``, the place inside of it, what is there instead, and ``remedy``.
    """
    try:
        return TypeAdapter(kind).validate_python(content)
    except ValidationError as problem:
        first = problem.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        given = repr(first["input"])
        given = given if len(given) <= 60 else given[:57] + "..."
        raise error(f"{where}: {place} is {given}: {first['msg']}. {remedy}") from problem
