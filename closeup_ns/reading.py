"""Files that may be damaged or foreign: whatever goes wrong becomes one error with file, place and remedy."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from torch import Tensor
from typeguard import CollectionCheckStrategy, TypeCheckError, check_type

from closeup_ns.errors import CloseupError, DataError

T = TypeVar("T")


@contextmanager
def reading(path: Path, remedy: str, kind: type[CloseupError] = DataError) -> Iterator[None]:
    """Turn any failure within the block into ``kind``, with the name of the file, the reason and what to do.

    Any: a damaged file raises what zlib, zipfile, tokenize, pickle, yaml and torch please, and no list is complete.

    Args:
        remedy: a sentence without its full stop.
    """
    try:
        yield
    except kind:
        raise
    except Exception as error:
        raise kind(f"{path} cannot be read ({_reason(error)}). {remedy}") from error


def read_json(path: Path, shape: Any, remedy: str, kind: type[CloseupError] = DataError) -> Any:
    """The content of a JSON file whose numbers are all finite and that has the types of ``shape``.

    Args:
        shape: a type, such as a TypedDict or ``list[float]``.
        remedy: what to do where it is not so, a sentence without its full stop.
        kind: the error to raise.
    """
    with reading(path, remedy, kind):
        text = path.read_text(encoding="utf8")
        content = json.loads(text, parse_int=_integer, parse_float=_finite_number, parse_constant=_finite_number)
        return check_type(content, shape, collection_check_strategy=CollectionCheckStrategy.ALL_ITEMS)


def build(cls: type[T], values: Mapping[str, Any]) -> T:
    """``cls(**values)`` for a dataclass, once each value has its field's type and each number is finite.

    Raises:
        CloseupError: a field is missing, unknown, of another type, or not finite.
    """
    hints = _hints(cls)
    try:
        for name, value in values.items():
            if name not in hints:
                raise ValueError(f"{name} is unknown")
            try:
                check_type(value, hints[name], collection_check_strategy=CollectionCheckStrategy.ALL_ITEMS)
            except TypeCheckError as error:
                raise ValueError(f"{name}: {error}") from error
            if not _is_finite(value):
                raise ValueError(f"{name} holds a number that is not finite")
        return cls(**values)
    except (TypeError, ValueError) as error:
        raise CloseupError(f"this is no saved {cls.__name__}: {error}") from error


@cache
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls)


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"it lacks {error}"
    said = error.strerror if isinstance(error, OSError) else str(error)
    return " ".join((said or type(error).__name__).split())[:400]


def _is_finite(value: Any) -> bool:
    if isinstance(value, Tensor):
        return bool(value.isfinite().all())
    if isinstance(value, Mapping):
        return all(map(_is_finite, value.values()))
    if isinstance(value, (list, tuple)):
        return all(map(_is_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def _finite_number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not a finite number")
    return value


def _integer(text: str) -> int:
    value = int(text)
    if abs(value) >= 1 << 53:
        raise ValueError(f"{text[:20]} is more than any number of ours")
    return value
