"""Protocols as data: which scenes, how each is split into what is trained on and what is looked at, and at what scales.

A protocol is a YAML file: one of ``closeup_ns/bench/protocols`` by its name, or anybody's own by its path. Keys of a
scene override those of the protocol.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from closeup_ns.errors import DataError

FOLDER = Path(__file__).parent / "protocols"
Kind = Literal["rendered", "distance", "progressive", "zoom"]


@dataclass(frozen=True)
class Rule:
    """How a scene is split; which fields count depends on ``kind``."""

    kind: Kind = "distance"
    """rendered: the demo scene. distance: far photographs against near ones. progressive: training views moved closer.
    zoom: crops of larger photographs."""
    split: Literal["rule", "given"] = "rule"
    """distance: by the rule below, or by the capture's own lists of file names."""
    test_share: float = 1 / 3
    """distance: share of the photographs, nearest first, that are the test."""
    threshold: float = 1.8
    """distance: trained on is what is farther than this many times the median distance of the test."""
    scales: tuple[float, ...] = ()
    """progressive, rendered: how many times nearer. distance and zoom measure it."""
    views_per_scale: int = 5
    """progressive: test views at each scale."""
    train_folder: str = "images_8"
    """zoom: photographs to train on."""
    test_folder: str = "images_4"
    """zoom: the same photographs, larger, to cut the test from."""
    hold_out_every: int = 8
    """distance, zoom: every n-th of the (far) photographs is held out of training and tested as a far view; 0: none."""
    rounds: int = 3
    """How many rounds a progressive method gets."""
    frontier: Literal["own", "test"] = "own"
    """test: the test poses are offered as frontier views (the paper on LERF)."""
    image_side: int = 0
    """Longest side, in pixels, that photographs are reduced to before anything else; 0 keeps them."""
    points: Literal["auto", "given", "none"] = "auto"
    """Seed points: auto leaves them out where near photographs may have made them, given says that they have not."""


@dataclass(frozen=True)
class Scene:
    """One scene of a protocol."""

    name: str
    rule: Rule
    data: str = ""
    """Folder or transforms json below the data folder (``--data``); unused for rendered scenes."""
    pixel: str = ""
    """Object of interest as NAME:COLUMN:ROW on a photograph of the size that is trained on; "" takes where the cameras
    look."""
    object: str = ""
    """What it is, in words."""
    settings: dict[str, Any] = field(default_factory=dict)
    """rendered: seed, size, far_photos, closeups."""


@dataclass(frozen=True)
class Protocol:
    """A named set of scenes."""

    name: str
    summary: str
    scenes: tuple[Scene, ...]

    def pick(self, names: tuple[str, ...]) -> Protocol:
        """Only some of the scenes. DataError for one that it has not."""
        known = {scene.name: scene for scene in self.scenes}
        unknown = [name for name in names if name not in known]
        if unknown:
            raise DataError(f"protocol {self.name} has no scene {unknown[0]!r}; it has {', '.join(known)}")
        return replace(self, scenes=tuple(known[name] for name in names)) if names else self


def protocol_names() -> list[str]:
    """The protocols that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_protocol(name: str, **changes: Any) -> Protocol:
    """A protocol by name, or by the path of its file. ``changes`` override the rule of every scene; None does not.

    Raises:
        DataError: there is no such protocol, or its file has a key that does not exist or a value of a wrong type.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else FOLDER / f"{name}.yaml"
    try:
        content = yaml.safe_load(path.read_text(encoding="utf8"))
    except (OSError, yaml.YAMLError) as problem:
        raise DataError(
            f"cannot read the protocol {name} ({problem}); there are {', '.join(protocol_names())}"
        ) from None
    if not isinstance(content, dict) or not isinstance(content.get("scenes"), list) or not content["scenes"]:
        raise DataError(f"{path} is no protocol: it needs a name and a list of scenes")
    common = {key: value for key, value in content.items() if key not in ("name", "summary", "scenes")}
    given = {key: value for key, value in changes.items() if value is not None}
    scenes = tuple(_scene(entry, common, given, path) for entry in content["scenes"])
    return Protocol(str(content.get("name", path.stem)), str(content.get("summary", "")), scenes)


def _scene(entry: dict[str, Any], common: dict[str, Any], changes: dict[str, Any], path: Path) -> Scene:
    merged = {**common, **entry, **changes}
    rule_keys, scene_keys = ({item.name for item in fields(kind)} for kind in (Rule, Scene))
    rule = {key: merged.pop(key) for key in list(merged) if key in rule_keys}
    known = {key: merged.pop(key) for key in list(merged) if key in scene_keys - {"rule", "settings"}}
    if rule.get("kind") not in get_args(Kind):
        raise DataError(f"{path}: kind is {rule.get('kind')!r}; it must be one of {', '.join(get_args(Kind))}")
    rendered = rule["kind"] == "rendered"
    if merged and not rendered:
        raise DataError(f"{path}: unknown key {next(iter(merged))!r} for scene {known.get('name')}")
    if "name" not in known or not (rendered or known.get("data")):
        raise DataError(f"{path}: a scene needs a name and data")
    if "scales" in rule:
        rule["scales"] = tuple(float(scale) for scale in rule["scales"])
    return Scene(rule=Rule(**rule), settings=merged, **known)
