"""Protocols as data: the scenes, how each is split into training photographs and test views, and at what scales.

A protocol is a YAML file: one of ``closeup_ns/bench/protocols`` by its name, or anybody's own by its path. Keys of a
scene override those of the protocol.
"""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from closeup_ns.errors import DataError
from closeup_ns.reading import CLOSED, checked, read_json

FOLDER = Path(__file__).parents[1] / "protocols"
NAME = r"^[A-Za-z0-9][A-Za-z0-9._+-]*$"
"""Of protocols, scenes and methods: they name folders."""
Scale = Annotated[float, Field(gt=1, le=1000)]
Pixels = Annotated[int, Field(ge=0, le=100_000)]
_REMEDY = "The protocols in closeup_ns/bench/protocols show every key"


@dataclass(frozen=True, config=CLOSED)
class Rule:
    """How a scene is split; which fields count depends on ``kind``."""

    kind: Literal["rendered", "distance", "progressive", "native"]
    """rendered: the demo scene. distance: far photographs against near ones. progressive: training views moved closer.
    native: held-out photographs, and what ns-eval cuts from their originals around the target."""
    split: Literal["rule", "given"] = "rule"
    """distance: by the rule below, or by the capture's own lists of file names."""
    test_share: Annotated[float, Field(gt=0, lt=1)] = 1 / 3
    """distance: share of the photographs, nearest first, that are the test."""
    threshold: Annotated[float, Field(ge=1, le=1000)] = 1.8
    """distance: trained on is what is farther than this many times the median distance of the test."""
    scales: tuple[Scale, ...] = ()
    """progressive, rendered, native: how many times nearer. distance measures it."""
    views_per_scale: Annotated[int, Field(ge=1)] = 5
    """progressive: test views at each scale."""
    hold_out_every: Annotated[int, Field(ge=0)] = 8
    """distance: every n-th of the far photographs is held out of training and tested as a far view; 0: none."""
    rounds: Annotated[int, Field(ge=0, le=10)] = 3
    """How many rounds a progressive method gets."""
    frontier: Literal["own", "test"] = "own"
    """test: the test poses are offered as frontier views (the paper on LERF)."""
    image_side: Pixels = 0
    """Longest side, in pixels, of the photographs that are trained on; 0 keeps them."""
    points: Literal["auto", "given", "none"] = "auto"
    """Seed points: auto leaves them out where near photographs may have made them, given says that they have not."""


@dataclass(frozen=True, config=CLOSED)
class Rendered:
    """How the demo scene is rendered; the defaults are the demo's."""

    seed: Annotated[int, Field(ge=0)] = 0
    size: tuple[Annotated[int, Field(ge=8, le=4096)], Annotated[int, Field(ge=8, le=4096)]] = (512, 384)
    """Width and height that are trained on."""
    far_photos: Annotated[int, Field(ge=4, le=1000)] = 34
    closeups: Annotated[int, Field(ge=1, le=100)] = 4
    """At each scale."""
    finer: Annotated[int, Field(ge=2, le=8)] = 4
    """How many times more pixels along each axis the photographs as taken have."""


@dataclass(frozen=True, config=CLOSED)
class Scene:
    """One scene of a protocol."""

    name: Annotated[str, Field(pattern=NAME)]
    rule: Rule
    data: str = ""
    """Folder or transforms json below the data folder (``--data``); unused for rendered scenes."""
    pixel: Annotated[str, Field(pattern=r"^$|^[^:]+:\d+(\.\d+)?:\d+(\.\d+)?$")] = ""
    """Object of interest as NAME:COLUMN:ROW on a photograph of the size that is trained on; "" takes where the cameras
    look."""
    object: str = ""
    """What it is."""
    rendered: Rendered = Field(default_factory=Rendered)

    def __post_init__(self) -> None:
        inside = Path(self.data)
        if self.rule.kind != "rendered" and (not self.data or inside.is_absolute() or ".." in inside.parts):
            raise ValueError(f"scene {self.name} needs `data`: a folder below --data, and not {self.data!r}")


@dataclass(frozen=True, config=CLOSED)
class Protocol:
    """A named set of scenes."""

    name: Annotated[str, Field(pattern=NAME)]
    scenes: Annotated[tuple[Scene, ...], Field(min_length=1)]
    summary: str = ""

    def __post_init__(self) -> None:
        names = [scene.name for scene in self.scenes]
        if len(set(names)) < len(names):
            raise ValueError("two scenes have one name")

    def pick(self, names: tuple[str, ...]) -> Protocol:
        """Only some of the scenes. DataError for one that it has not."""
        by_name = {scene.name: scene for scene in self.scenes}
        unknown = [name for name in names if name not in by_name]
        if unknown:
            raise DataError(f"protocol {self.name} has no scene {unknown[0]!r}; it has {', '.join(by_name)}")
        return replace(self, scenes=tuple(by_name[name] for name in names)) if names else self


def protocol_names() -> list[str]:
    """The protocols that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_protocol(name: str, **changes: Any) -> Protocol:
    """A protocol by name, or by the path of its file. ``changes`` override the rule of every scene; None does not.

    Raises:
        DataError: there is no such protocol, or its file has a key that does not exist or a value that makes no sense.
    """
    own = name.endswith((".yaml", ".yml"))
    if not own and name not in protocol_names():
        raise DataError(
            f"there is no protocol {name!r}; there are {', '.join(protocol_names())}, or the path of a .yaml file"
        )
    path = Path(name) if own else FOLDER / f"{name}.yaml"
    content = read_json(path, dict[str, Any], _REMEDY)
    entries = checked(list[dict[str, Any]], content.get("scenes"), f"{path}: scenes", _REMEDY)
    common = {key: value for key, value in content.items() if key not in ("name", "summary", "scenes")}
    given = {key: value for key, value in changes.items() if value is not None}
    scenes = [_nested({**common, **entry, **given}) for entry in entries]
    about = {"name": content.get("name", path.stem), "summary": content.get("summary", "")}
    return checked(Protocol, {**about, "scenes": scenes}, path, _REMEDY)


def _nested(flat: dict[str, Any]) -> dict[str, Any]:
    """A scene's keys where they belong: the rule's and the rendering's in parts of their own."""
    parts = {part: {f.name for f in fields(kind)} for part, kind in (("rule", Rule), ("rendered", Rendered))}
    nested = {part: {key: value for key, value in flat.items() if key in keys} for part, keys in parts.items()}
    return {**{key: value for key, value in flat.items() if key not in parts["rule"] | parts["rendered"]}, **nested}
