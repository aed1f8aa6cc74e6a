"""Reading a capture that is damaged on purpose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from closeup_ns.data.dataparser import CloseupDataParserConfig
from closeup_ns.data.dataset import CloseupDataset
from closeup_ns.errors import DataError


def message(path: Path, **options: Any) -> str:
    """The message of the DataError that reading ``path`` ends in, loading the images included."""
    with pytest.raises(DataError) as caught:
        load(path, **options)
    return str(caught.value)


def load(path: Path, **options: Any) -> None:
    config = CloseupDataParserConfig(data=path, train_on_all=True, **options)
    dataset = CloseupDataset(config.setup().get_dataparser_outputs())
    for index in range(len(dataset)):
        dataset.get_data(index, "uint8")


def damage(path: Path, keep: float) -> None:
    """Cut the file off after this share of its bytes."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
