"""Files that may be damaged or foreign: whatever goes wrong becomes one error with file, place and remedy."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, create_model
from torch import Tensor

from closeup_ns.errors import CloseupError, DataError

T = TypeVar("T")

CLOSED = ConfigDict(extra="forbid", allow_inf_nan=False)
"""For files that people write: a key that does not exist is an error, and so are NaN and infinity."""
OPEN = ConfigDict(extra="ignore", allow_inf_nan=False)
"""For files that programs write: further keys are passed over."""
_EXACT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, arbitrary_types_allowed=True)
"""For dataclasses whose tensors and nested parts are made already."""
LARGEST_FILE = 64 * 2**20
"""Bytes. No JSON or YAML file that is read here is larger."""


@contextmanager
def reading(place: object, remedy: str, kind: type[CloseupError] = DataError) -> Iterator[None]:
    """Turn any failure of the block into ``kind``, with the place, the reason and what to do.

    Any: a damaged file raises what zlib, zipfile, tokenize, pickle, yaml and torch please, and no list is complete.

    Args:
        place: the file, or what prints as the file and the place in it that was reached when it fails.
        remedy: what to do, as a sentence.
    """
    try:
        yield
    except kind:
        raise
    except FileNotFoundError as error:
        raise kind(f"{place} does not exist. {remedy}") from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            remedy = "Check the disk, the permissions, and how many files may be open at once."
            raise kind(f"{place} cannot be read from the disk: {error.strerror}. {remedy}") from error
        raise kind(f"{place} cannot be read ({_reason(error)}). {remedy}") from error


def read_json(path: Path, shape: Any, remedy: str, kind: type[CloseupError] = DataError) -> Any:
    """The content of a JSON or YAML (.yaml, .yml; without tags) file as ``shape``; all numbers in JSON are finite.

    Args:
        shape: a type that pydantic knows: a dataclass, a TypedDict, ``list[float]``.
        remedy: what to do where it is not so, as a sentence.
        kind: the error to raise.
    """
    with reading(path, remedy, kind):
        if path.stat().st_size > LARGEST_FILE:
            raise ValueError(f"it is larger than {LARGEST_FILE // 2**20} MiB")
        if path.suffix in (".yaml", ".yml"):
            content = yaml.safe_load(path.read_text(encoding="utf8"))
        else:
            content = json.loads(
                path.read_bytes(), parse_int=_integer, parse_float=_finite_number, parse_constant=_finite_number
            )
        return TypeAdapter(shape).validate_python(content)


def checked(shape: type[T] | Any, content: Any, where: object, remedy: str, kind: type[CloseupError] = DataError) -> T:
    """``content`` as ``shape``, nested parts included. ``kind`` where it is not, with ``where`` and ``remedy``."""
    with reading(where, remedy, kind):
        return TypeAdapter(shape).validate_python(content)


def build(cls: type[T], values: Mapping[str, Any]) -> T:
    """``cls(**values)`` for a dataclass, once each value has its field's type and each number is finite.

    Raises:
        CloseupError: a field is missing, unknown, of another type, or not finite.
    """
    try:
        _model(cls).model_validate(dict(values))
        for name, value in values.items():
            if isinstance(value, Tensor) and not bool(value.isfinite().all()):
                raise ValueError(f"{name} holds a number that is not finite")
        return cls(**values)
    except (TypeError, ValueError) as error:
        raise CloseupError(f"this is no saved {cls.__name__}: {_reason(error)}") from error


@cache
def _model(cls: type) -> type[BaseModel]:
    """What pydantic checks the fields of a dataclass by, each by itself."""
    hints = get_type_hints(cls)
    fields: dict[str, Any] = {}
    for item in dataclasses.fields(cls):
        required = item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
        fields[item.name] = (hints[item.name], ... if required else None)
    return create_model(cls.__name__, __config__=_EXACT, **fields)


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        given = repr(first["input"])
        place = ".".join(str(part) for part in first["loc"]) or "its content"
        return f"{place} is {given if len(given) <= 60 else given[:57] + '...'}: {first['msg']}"
    if isinstance(error, KeyError):
        return f"it lacks {error}"
    if isinstance(error, json.JSONDecodeError):
        return f"not valid JSON: {error.msg} in line {error.lineno}, column {error.colno}"
    return " ".join((str(error) or type(error).__name__).split())[:400]


def _integer(text: str) -> int:
    value = int(text)
    if abs(value) >= 1 << 53:
        raise ValueError(f"{text[:20]} is more than any number of ours")
    return value


def _finite_number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not a finite number")
    return value
