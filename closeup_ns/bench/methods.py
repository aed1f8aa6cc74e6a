"""The rows of the tables as data (methods.yaml), and what ns-train is told so that all of them train equally long."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_type_hints

import yaml

from closeup_ns.errors import CloseupError, DataError

FILE = Path(__file__).parent / "methods.yaml"
ZOOM = 3.0
"""How much closer each round goes (`PlannerConfig.zoom`; paper, section 5.2)."""
_OURS = "closeup-"
_REFINER = "--pipeline.refiner."


@dataclass(frozen=True)
class Budget:
    """How long every row trains."""

    base_steps: int
    rounds: int
    round_steps: int

    def __post_init__(self) -> None:
        if self.base_steps < 1 or self.rounds < 0 or self.round_steps < 0:
            raise CloseupError(f"a bench needs at least one base step, and no negative rounds: {self}")

    @property
    def total(self) -> int:
        """Steps in total, the same for every row."""
        return self.base_steps + self.rounds * self.round_steps


@dataclass(frozen=True)
class Method:
    """One row. Exactly one of ``nerfstudio`` and ``renders`` is set."""

    name: str
    label: str = ""
    """What tables call it."""
    nerfstudio: str = ""
    """Method of ns-train."""
    quick: str = ""
    """The method of ns-train for quick benches; "" for the same one."""
    options: tuple[str, ...] = ()
    """Further options of ns-train. ``{closest}`` stands for the factor of the protocol's last round."""
    quick_options: tuple[str, ...] = ()
    """Still further ones, for quick benches."""
    rounds: int | None = None
    """Rounds of a progressive method: 0, 1, or None for the protocol's."""
    needs: tuple[str, ...] = ()
    """Parts of closeup-gs that it cannot do without: "see3d", "enhance"."""
    test_poses: bool = False
    """Its first round's frontier is the protocol's test poses, as in the paper on LERF, instead of poses of its own."""
    renders: str = ""
    """Folder with PROTOCOL/SCENE/NAME.png, for systems outside of nerfstudio."""
    note: str = ""
    """What a reader of its figures must know."""

    def __post_init__(self) -> None:
        if bool(self.nerfstudio) == bool(self.renders):
            raise DataError(f"method {self.name}: give it either `nerfstudio` or `renders`")
        if self.rounds not in (None, 0, 1):
            raise DataError(f"method {self.name}: rounds is {self.rounds}; it must be 0, 1 or absent")

    @property
    def ours(self) -> bool:
        """Whether it has our schedule, target and seed."""
        return self.nerfstudio.startswith(_OURS)

    def trained_as(self, quick: bool) -> str:
        """The method of ns-train."""
        return (quick and self.quick) or self.nerfstudio

    def schedule(self, budget: Budget) -> Budget:
        """Its share of base steps and rounds; the total is that of ``budget``."""
        if not self.ours or self.rounds == 0 or budget.rounds == 0:
            return Budget(budget.total, 0, 0)
        if self.rounds == 1:
            return Budget(budget.base_steps, 1, budget.total - budget.base_steps)
        return budget


def train_options(method: Method, budget: Budget, seed: int, quick: bool, cuda: bool, start: int = 0) -> list[str]:
    """Options of ns-train that set the steps, the seed, the device and what the row is about.

    Args:
        budget: of the bench; the row's own schedule follows from it.
        cuda: whether there is a GPU. Our methods find out by themselves.
        start: step that a resumed training starts at. nerfstudio counts ``max_num_iterations`` from there, our
            trainer from the start of the run.
    """
    own = method.schedule(budget)
    words = ["--vis", "tensorboard", "--machine.seed", str(seed)]
    if method.ours:
        words += ["--pipeline.seed", str(seed)]
        for name, value in (("base-steps", own.base_steps), ("rounds", own.rounds), ("round-steps", own.round_steps)):
            words += [f"--pipeline.schedule.{name}", str(value)]
    else:
        words += ["--max-num-iterations", str(own.total - start)]
        for what in ("batch", "image", "all-images"):  # its own evaluation on the way is not looked at
            words += [f"--steps-per-eval-{what}", str(10 * own.total)]
        words += [] if cuda else ["--machine.device-type", "cpu", "--mixed-precision", "False"]
    closest = f"{ZOOM**budget.rounds:g}"
    given = [*method.options, *(method.quick_options if quick else ())]
    return words + [word.replace("{closest}", closest) for word in given]


def require_parts(method: Method, further: Sequence[str] = ()) -> None:
    """Refuse a row whose refiner or enhancer cannot run here, before anything is trained.

    Args:
        further: options of ns-train beside the row's own, such as where weights are.

    Raises:
        CloseupError: what is missing, and what to do.
    """
    if not method.needs:
        return
    from closeup_ns.refine.refiner import RefinerConfig, check_refiner

    hints = get_type_hints(RefinerConfig)
    present = {*get_args(hints["kind"]), *hints}
    lacking = [part for part in method.needs if part not in present]
    if lacking:
        raise CloseupError(
            f"{method.label} needs {' and '.join(lacking)}, which this version of closeup-gs has not "
            f"(its refiners are {', '.join(get_args(hints['kind']))})"
        )
    import torch
    import tyro

    words = _refiner_words([*method.options, *further])
    config = tyro.cli(RefinerConfig, args=words, prog=f"bench row {method.name}: --pipeline.refiner")
    try:
        check_refiner(config, "cuda" if torch.cuda.is_available() else "cpu")
    except CloseupError as reason:
        raise CloseupError(f"{method.label} needs {' and '.join(method.needs)}: {reason}") from reason


def _refiner_words(words: Sequence[str]) -> list[str]:
    """The refiner's options among those of ns-train, without their prefix; of what is given twice the last counts."""
    found: dict[str, list[str]] = {}
    taken: list[str] | None = None
    for word in words:
        if word.startswith(_REFINER):
            taken = found["--" + word.removeprefix(_REFINER)] = []
        elif word.startswith("--"):
            taken = None
        elif taken is not None:
            taken.append(word)
    return [word for name, values in found.items() for word in (name, *values)]


def load_methods(path: Path = FILE) -> dict[str, Method]:
    """All rows by name.

    Raises:
        DataError: the file cannot be read, or has a key that does not exist.
    """
    return {name: _method(str(name), entry, path) for name, entry in _content(path)["methods"].items()}


def table_methods(table: str, protocol: str = "") -> tuple[str, ...]:
    """Names of a table's rows in order; "auto" is the table that the paper shows ``protocol`` in."""
    content = _content(FILE)
    if table == "auto":
        table = content["protocols"].get(protocol, "default")
    if table not in content["tables"]:
        raise DataError(f"there is no table {table!r}; there are auto, {', '.join(content['tables'])}")
    return tuple(content["tables"][table])


def pick_methods(names: Sequence[str], folders: Mapping[str, str], path: Path = FILE) -> list[Method]:
    """The rows called ``names``: of methods.yaml, else any method of ns-train; then folders of renders by name.

    Raises:
        DataError: a name is neither.
    """
    known = load_methods(path)
    picked = [known.get(name) or _nerfstudio_method(name, known) for name in dict.fromkeys(names)]
    added = [Method(name, name, renders=str(Path(folder).resolve())) for name, folder in folders.items()]
    doubled = {method.name for method in picked} & {method.name for method in added}
    if doubled:
        raise DataError(f"{min(doubled)} is the name of a method and of a folder of renders; call the folder otherwise")
    return picked + added


def _nerfstudio_method(name: str, known: Mapping[str, Method]) -> Method:
    from nerfstudio.configs.method_configs import all_methods

    if name not in all_methods:
        raise DataError(
            f"there is no method {name!r}: it is none of ours ({', '.join(known)}) and none of ns-train. What was "
            "rendered elsewhere comes in with --renders"
        )
    return Method(name, name, nerfstudio=name)


def _method(name: str, entry: Any, path: Path) -> Method:
    known = {item.name: item for item in fields(Method)}
    unknown = [key for key in entry if key not in known or key == "name"] if isinstance(entry, dict) else ["?"]
    if unknown or "/" in name or name.startswith("."):
        raise DataError(f"{path}: method {name!r} has no key {(unknown or ['name'])[0]!r}; it has {', '.join(known)}")
    values = {key: _text(value) if known[key].default is not MISSING else value for key, value in entry.items()}
    return Method(name, **{"label": name, **values})


def _text(value: Any) -> Any:
    """Lists become tuples of words: YAML reads 0.3 and False where a command line is meant."""
    return tuple(str(word) for word in value) if isinstance(value, list) else value


@cache
def _content(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf8"))
        if not isinstance(content, dict) or not isinstance(content.get("methods"), dict):
            raise ValueError("it needs `methods`")
        content["methods"] = {
            name: {key: _flat(value) for key, value in entry.items()} if isinstance(entry, dict) else entry
            for name, entry in content["methods"].items()
        }
        return content
    except (OSError, yaml.YAMLError, ValueError) as problem:
        raise DataError(f"cannot read the methods {path} ({problem})") from None


def _flat(value: Any) -> Any:
    """An alias inside of a list is a list inside of a list."""
    if not isinstance(value, list):
        return value
    return [word for part in value for word in (part if isinstance(part, list) else [part])]
