"""A run's config.yml as plain values: nothing is constructed, so a report needs no nerfstudio and trusts no file."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from closeup_ns.errors import CheckpointError
from closeup_ns.reading import reading


class _PlainLoader(yaml.SafeLoader):
    """Reads Python objects as the mappings, lists and strings that they are written as."""


def _plain(loader: _PlainLoader, suffix: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    if isinstance(node, yaml.SequenceNode):
        parts = loader.construct_sequence(node, deep=True)
        if suffix.startswith("object/apply:pathlib."):
            return str(PurePosixPath(*map(str, parts)))
        return parts[0] if suffix.startswith("object/apply:") and len(parts) == 1 else parts
    return suffix.removeprefix("name:") or None


_PlainLoader.add_multi_constructor("tag:yaml.org,2002:python/", _plain)


def read_config(path: Path) -> dict[str, Any]:
    """The options of a run, nested by name.

    Raises:
        CheckpointError: it is not there or is no config.yml of nerfstudio.
    """
    if not path.is_file():
        said = "is a folder" if path.is_dir() else "does not exist"
        raise CheckpointError(f"{path} {said}: --load-config wants the config.yml of a run")
    with reading(path, "It is no whole config.yml of a nerfstudio run: restore it from a copy", CheckpointError):
        content = yaml.load(path.read_text(encoding="utf8"), Loader=_PlainLoader)  # a SafeLoader
        # nerfstudio writes them in alphabetical order, so a cut file lacks the last.
        for name in ("method_name", "pipeline", "timestamp", "vis"):
            content[name]
    return content


def option(config: dict[str, Any], dotted: str) -> Any:
    """The value at ``pipeline.schedule.rounds`` and the like; None where there is none."""
    value: Any = config
    for name in dotted.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value
