"""The rows of the tables (methods.yaml), and the options of ns-train that make all of them train equally long."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic.dataclasses import dataclass

from closeup_ns.bench.scenes.protocol import NAME
from closeup_ns.errors import CloseupError, DataError
from closeup_ns.reading import CLOSED, read_json

FILE = Path(__file__).parent / "methods.yaml"
ZOOM = 3.0
"""How much closer each round goes (`ScheduleConfig.zoom`; paper, section 5.2)."""
PARSER = "closeup-data"
_OURS = "closeup-"


@dataclass(frozen=True)
class Budget:
    """How long every row trains, in steps."""

    base_steps: int
    rounds: int
    round_steps: int

    def __post_init__(self) -> None:
        if self.base_steps < 1 or self.rounds < 0 or self.round_steps < 0:
            raise CloseupError(f"a bench needs at least one base step, and no negative rounds: {self}")

    @property
    def total(self) -> int:
        """Steps in total, the same for every row without a CPU budget."""
        return self.base_steps + self.rounds * self.round_steps


def _flat(value: Any) -> Any:
    """Arguments as strings: YAML reads 0.3 and False, and an alias inside of a list is a list inside of a list."""
    if not isinstance(value, (list, tuple)):
        return value
    return [str(item) for part in value for item in (part if isinstance(part, list) else [part])]


Arguments = Annotated[tuple[str, ...], BeforeValidator(_flat)]


@dataclass(frozen=True, config=CLOSED)
class Method:
    """One row. Exactly one of ``nerfstudio`` and ``renders`` is set."""

    name: Annotated[str, Field(pattern=NAME)]
    label: str = ""
    """What tables call it."""
    nerfstudio: str = ""
    """Method of ns-train."""
    quick: str = ""
    """The method of ns-train for quick benches; "" for the same one."""
    options: Arguments = ()
    """Further options of ns-train. ``{closest}`` stands for the factor of the protocol's last round."""
    quick_options: Arguments = ()
    """Still further ones, for quick benches."""
    rounds: Literal[0, 1] | None = None
    """Rounds of a progressive method: 0, 1, or None for the protocol's."""
    test_poses: bool = False
    """Its first round's frontier is the protocol's test poses, as in the paper on LERF, instead of poses of its own."""
    finer: Annotated[int, Field(ge=1, le=16)] = 1
    """It trains on photographs this many times larger, along each axis, than the protocol's ``image_side``."""
    cpu_time_of: str = ""
    """It trains for as much CPU time as the row of this name, on the same scene with the same seed, instead of for as
    many steps."""
    renders: str = ""
    """Folder with PROTOCOL/SCENE/NAME.png, for systems outside of nerfstudio."""
    note: str = ""
    """What a reader of its figures must know."""

    def __post_init__(self) -> None:
        if bool(self.nerfstudio) == bool(self.renders):
            raise ValueError(f"method {self.name}: give it either `nerfstudio` or `renders`")

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


def train_options(
    method: Method, budget: Budget, seed: int, quick: bool, cuda: bool, start: int = 0, steps: int = 0
) -> list[str]:
    """Options of ns-train that set the steps, the seed, the device and what the row is about.

    Args:
        budget: of the bench; the row's own schedule follows from it.
        cuda: whether there is a GPU. Our methods find out by themselves.
        start: step that a resumed training starts at. nerfstudio counts ``max_num_iterations`` from there, our
            trainer from the start of the run.
        steps: of a row without rounds whose CPU time is given; 0: those of ``budget``.
    """
    own = Budget(steps, 0, 0) if steps else method.schedule(budget)
    options = ["--vis", "tensorboard", "--machine.seed", str(seed)]
    if method.ours:
        options += ["--pipeline.seed", str(seed)]
        for name, value in (("base-steps", own.base_steps), ("rounds", own.rounds), ("round-steps", own.round_steps)):
            options += [f"--pipeline.schedule.{name}", str(value)]
    else:
        options += ["--max-num-iterations", str(own.total - start)]
        for what in ("batch", "image", "all-images"):  # its own evaluation on the way is not looked at
            options += [f"--steps-per-eval-{what}", str(10 * own.total)]
        options += [] if cuda else ["--machine.device-type", "cpu", "--mixed-precision", "False"]
    closest = f"{ZOOM**budget.rounds:g}"
    given = [*method.options, *(method.quick_options if quick else ())]
    return options + [option.replace("{closest}", closest) for option in given]


def load_methods() -> dict[str, Method]:
    """All rows of methods.yaml by name."""
    return _content().methods


def table_methods(table: str, protocol: str = "") -> tuple[str, ...]:
    """Names of a table's rows in order; "auto" is the table that shows ``protocol``."""
    content = _content()
    if table == "auto":
        table = content.protocols.get(protocol, "default")
    if table not in content.tables:
        raise DataError(f"there is no table {table!r}; there are auto, {', '.join(content.tables)}")
    return content.tables[table]


def table_names() -> list[str]:
    """The tables of methods.yaml."""
    return list(_content().tables)


def pick_methods(names: Sequence[str], folders: Mapping[str, str]) -> list[Method]:
    """The rows called ``names``: of methods.yaml, else any method of ns-train; then folders of renders by name.

    Raises:
        DataError: a name is neither.
    """
    rows = load_methods()
    picked = [rows.get(name) or _nerfstudio_method(name, rows) for name in dict.fromkeys(names)]
    added = [Method(name, name, renders=str(Path(folder).resolve())) for name, folder in folders.items()]
    doubled = {method.name for method in picked} & {method.name for method in added}
    if doubled:
        raise DataError(f"{min(doubled)} is the name of a method and of a folder of renders; call the folder otherwise")
    return picked + added


def _nerfstudio_method(name: str, rows: Mapping[str, Method]) -> Method:
    from nerfstudio.configs.method_configs import all_methods

    if name not in all_methods:
        raise DataError(
            f"there is no method {name!r}: it is none of ours ({', '.join(rows)}) and none of ns-train. What was "
            "rendered elsewhere comes in with --renders"
        )
    return Method(name, name, nerfstudio=name)


def _named(entries: Any) -> Any:
    """Every entry knows its key, and is labelled with it where it has no label."""
    if not isinstance(entries, dict):
        return entries
    return {
        name: {"label": str(name), **entry, "name": str(name)} if isinstance(entry, dict) else entry
        for name, entry in entries.items()
    }


@dataclass(frozen=True, config=CLOSED)
class _File:
    methods: Annotated[dict[str, Method], BeforeValidator(_named)]
    tables: dict[str, tuple[str, ...]]
    protocols: dict[str, str]


@cache
def _content() -> _File:
    return read_json(FILE, _File, "It comes with closeup-ns: install that again")
