"""The rows: every one of them trains for the same number of steps, with options that ns-train knows."""

from __future__ import annotations

import dataclasses
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from closeup_ns.bench.methods import (
    Budget,
    Method,
    load_methods,
    pick_methods,
    table_methods,
    table_names,
    train_options,
)
from closeup_ns.errors import CloseupError, DataError
from tests.bench.stand_in import option

METHODS = load_methods()
BUDGETS = st.builds(Budget, st.integers(1, 30000), st.integers(0, 4), st.integers(0, 5000))


@given(budget=BUDGETS, name=st.sampled_from(sorted(METHODS)), quick=st.booleans())
def test_every_row_trains_for_as_many_steps(budget: Budget, name: str, quick: bool) -> None:
    arguments = train_options(METHODS[name], budget, 0, quick, cuda=True)
    if METHODS[name].ours:
        base, rounds, each = (
            int(option(arguments, f"--pipeline.schedule.{part}")) for part in ("base-steps", "rounds", "round-steps")
        )
        assert base + rounds * each == budget.base_steps + budget.rounds * budget.round_steps
        assert "--max-num-iterations" not in arguments
    else:
        assert int(option(arguments, "--max-num-iterations")) == budget.base_steps + budget.rounds * budget.round_steps
        assert not [word for word in arguments if word.startswith("--pipeline")]


def test_one_round_goes_as_close_as_all_of_them() -> None:
    arguments = train_options(METHODS["no-progressive"], Budget(100, 3, 10), 0, False, cuda=True)
    assert option(arguments, "--pipeline.schedule.zoom") == "27"
    assert option(arguments, "--pipeline.schedule.rounds") == "1"
    assert option(arguments, "--pipeline.schedule.round-steps") == "30"


def test_a_resumed_training_of_nerfstudios_does_what_is_left() -> None:
    """nerfstudio counts from where it starts, our trainer from the start of the run."""
    nerfacto, ours = METHODS["nerfacto"], METHODS["closeup-gs"]
    budget = Budget(100, 3, 10)
    assert option(train_options(nerfacto, budget, 0, False, True, start=50), "--max-num-iterations") == "80"
    assert train_options(ours, budget, 0, False, True, start=50) == train_options(ours, budget, 0, False, True)


def test_seeds_and_devices() -> None:
    arguments = train_options(METHODS["nerfacto"], Budget(10, 0, 0), 5, False, cuda=False)
    assert option(arguments, "--machine.seed") == "5" and "--pipeline.seed" not in arguments
    assert option(arguments, "--machine.device-type") == "cpu" and option(arguments, "--mixed-precision") == "False"
    arguments = train_options(METHODS["closeup-gs"], Budget(10, 0, 0), 5, False, cuda=False)
    assert option(arguments, "--machine.seed") == option(arguments, "--pipeline.seed") == "5"
    assert "--machine.device-type" not in arguments


def test_no_option_is_given_twice() -> None:
    for method in METHODS.values():
        for quick in (False, True):
            arguments = [w for w in train_options(method, Budget(9, 3, 2), 0, quick, False) if w.startswith("--")]
            assert len(arguments) == len(set(arguments)), method.name


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("name", METHODS)
def test_ns_train_knows_every_option_and_value(name: str, quick: bool) -> None:
    """Each names a field of the method's config, and its value has that field's type."""
    assert resolved(METHODS[name], quick)


def test_a_protocol_has_its_table() -> None:
    assert table_methods("auto", "llff") == table_methods("2")
    assert table_methods("auto", "demo") == table_methods("default")
    with pytest.raises(DataError, match="no table '9'"):
        table_methods("9")


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("table", table_names())
def test_no_two_rows_of_a_table_are_one_and_none_trains_on_nothing(table: str, quick: bool) -> None:
    """Every row's options are put into its method's config; rows differ in what comes out."""
    seen: dict[str, str] = {}
    for name in table_methods(table):
        method = METHODS[name]
        settings = resolved(method, quick)
        key = json.dumps([settings, method.finer, method.cpu_time_of, method.test_poses], sort_keys=True, default=str)
        assert key not in seen, f"{name} and {seen[key]} are the same settings"
        seen[key] = name
        rounds = method.ours and method.schedule(Budget(9, 3, 2)).rounds
        if rounds and settings["pipeline.refiner.kind"] == "none":
            assert settings["pipeline.fine_tune.sparse_weight"] > 0, f"{name} trains on nothing that a round brings"


def test_rows_that_are_about_reliable_pixels_train_on_them_and_the_others_do_not() -> None:
    for name in (*table_methods("3"), "pseudo-labeling"):
        weight = resolved(METHODS[name], False)["pipeline.fine_tune.sparse_weight"]
        assert (weight > 0) == name.startswith(("reliable", "pseudo")), name


def resolved(method: Method, quick: bool) -> dict[str, object]:
    """What ns-train would train with: the method's config, flat, with the row's options in it."""
    options = train_options(method, Budget(9, 3, 2), 0, quick, True)
    given = {name[2:].replace("-", "_"): value for name, value in zip(options[::2], options[1::2])}
    if not method.ours:
        return {"method": method.trained_as(quick), **given}
    settings = flat(dataclasses.asdict(configs()[method.trained_as(quick)]))
    for name, value in given.items():
        default = settings[name]
        kind = type(default) if isinstance(default, (int, float)) else str
        settings[name] = {"True": True, "False": False}[value] if kind is bool else kind(value)
    return settings


def flat(nested: dict, before: str = "") -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in nested.items():
        found |= flat(value, f"{before}{name}.") if isinstance(value, dict) else {f"{before}{name}": value}
    return found


@cache
def configs() -> dict[str, Any]:
    from closeup_ns import method_config

    found = [value.config for value in vars(method_config).values() if hasattr(value, "config")]
    return {config.method_name: config for config in found}


def test_rows_are_picked_by_name_from_ns_train_and_from_folders(tmp_path: Path) -> None:
    picked = pick_methods(("base", "tensorf", "base"), {"theirs": str(tmp_path)})
    assert [method.name for method in picked] == ["base", "tensorf", "theirs"]
    assert picked[1].nerfstudio == "tensorf" and picked[2].renders == str(tmp_path.resolve())
    with pytest.raises(DataError, match="no method 'nonsense'"):
        pick_methods(("nonsense",), {})
    with pytest.raises(DataError, match="call the folder otherwise"):
        pick_methods(("base",), {"base": str(tmp_path)})


def test_no_steps_are_refused() -> None:
    with pytest.raises(CloseupError, match="at least one base step"):
        Budget(0, 3, 10)
