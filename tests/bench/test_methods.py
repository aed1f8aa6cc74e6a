"""The rows: every one of them trains for the same number of steps, with options that ns-train knows."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from closeup_ns.bench.methods import (
    Budget,
    Method,
    load_methods,
    pick_methods,
    require_parts,
    table_methods,
    train_options,
)
from closeup_ns.errors import CloseupError, DataError
from tests.bench.stand_in import option

METHODS = load_methods()
BUDGETS = st.builds(Budget, st.integers(1, 30000), st.integers(0, 4), st.integers(0, 5000))


@given(budget=BUDGETS, name=st.sampled_from(sorted(METHODS)), quick=st.booleans())
def test_every_row_trains_for_as_many_steps(budget: Budget, name: str, quick: bool) -> None:
    words = train_options(METHODS[name], budget, 0, quick, cuda=True)
    if METHODS[name].ours:
        base, rounds, each = (
            int(option(words, f"--pipeline.schedule.{part}")) for part in ("base-steps", "rounds", "round-steps")
        )
        assert base + rounds * each == budget.base_steps + budget.rounds * budget.round_steps
        assert "--max-num-iterations" not in words
    else:
        assert int(option(words, "--max-num-iterations")) == budget.base_steps + budget.rounds * budget.round_steps
        assert not [word for word in words if word.startswith("--pipeline")]


def test_one_round_goes_as_close_as_all_of_them() -> None:
    words = train_options(METHODS["no-progressive"], Budget(100, 3, 10), 0, False, cuda=True)
    assert option(words, "--pipeline.planner.zoom") == "27"
    assert option(words, "--pipeline.schedule.rounds") == "1"
    assert option(words, "--pipeline.schedule.round-steps") == "30"


def test_a_resumed_training_of_nerfstudios_does_what_is_left() -> None:
    """nerfstudio counts from where it starts, our trainer from the start of the run."""
    nerfacto, ours = METHODS["nerfacto"], METHODS["closeup-gs"]
    budget = Budget(100, 3, 10)
    assert option(train_options(nerfacto, budget, 0, False, True, start=50), "--max-num-iterations") == "80"
    assert train_options(ours, budget, 0, False, True, start=50) == train_options(ours, budget, 0, False, True)


def test_seeds_and_devices() -> None:
    words = train_options(METHODS["nerfacto"], Budget(10, 0, 0), 5, False, cuda=False)
    assert option(words, "--machine.seed") == "5" and "--pipeline.seed" not in words
    assert option(words, "--machine.device-type") == "cpu" and option(words, "--mixed-precision") == "False"
    words = train_options(METHODS["closeup-gs"], Budget(10, 0, 0), 5, False, cuda=False)
    assert option(words, "--machine.seed") == option(words, "--pipeline.seed") == "5"
    assert "--machine.device-type" not in words


def test_no_option_is_given_twice() -> None:
    for method in METHODS.values():
        for quick in (False, True):
            words = [w for w in train_options(method, Budget(9, 3, 2), 0, quick, False) if w.startswith("--")]
            assert len(words) == len(set(words)), method.name


def test_ns_train_knows_every_option_and_value() -> None:
    """Each names a field of the method's config, and its value has that field's type."""
    from closeup_ns import method_config

    found = [value.config for value in vars(method_config).values() if hasattr(value, "config")]
    all_methods = {config.method_name: config for config in found}
    for method in METHODS.values():
        for quick in (False, True):
            if not method.ours:
                continue
            config = all_methods[method.trained_as(quick)]
            words = train_options(method, Budget(9, 3, 2), 0, quick, False)
            for name, value in zip(words[::2], words[1::2], strict=True):
                _check(config, name, value)


def _check(config: object, name: str, value: str) -> None:
    """The option names a field of the config, and the value has its type."""
    for part in name.removeprefix("--").replace("-", "_").split("."):
        assert hasattr(config, part), f"{name} of {type(config).__name__}"
        config = getattr(config, part)
    if isinstance(config, bool):
        assert value in ("True", "False"), name
    elif isinstance(config, (int, float)):
        type(config)(value)


def test_tables_name_rows_that_exist() -> None:
    for table in ("default", "1", "2", "3", "fig5"):
        assert set(table_methods(table)) <= METHODS.keys()
    assert table_methods("auto", "llff") == table_methods("2")
    assert table_methods("auto", "demo") == table_methods("default")
    with pytest.raises(DataError, match="no table '9'"):
        table_methods("9")


def test_a_row_whose_parts_are_missing_says_which() -> None:
    with pytest.raises(CloseupError, match="needs flux, which this version"):
        require_parts(Method("m", "label", nerfstudio="closeup-gs", needs=("reliable", "flux")))
    require_parts(Method("m", "label", nerfstudio="closeup-gs", needs=("reliable",)))


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.needs])
def test_a_row_whose_weights_are_missing_says_what_to_do(name: str, tmp_path: Path) -> None:
    weights = ["--pipeline.refiner.see3d.weights", str(tmp_path), "--x", "1"]
    with pytest.raises(CloseupError, match=r"needs .*: the (refiner|enhancer) .* cannot run here: .+"):
        require_parts(METHODS[name], weights)


def test_where_the_weights_are_can_be_told() -> None:
    """As `bench --train-options` does; the row's own options, given once more, give way."""
    with pytest.raises(CloseupError, match="nobody/nothing are not in the local"):
        require_parts(METHODS["see3d-update"], ["--y", "2", "--pipeline.refiner.see3d.weights", "nobody/nothing"])
    require_parts(METHODS["see3d-update"], ["--pipeline.refiner.kind", "reliable"])


def test_rows_are_picked_by_name_from_ns_train_and_from_folders(tmp_path: Path) -> None:
    picked = pick_methods(("base", "tensorf", "base"), {"theirs": str(tmp_path)})
    assert [method.name for method in picked] == ["base", "tensorf", "theirs"]
    assert picked[1].nerfstudio == "tensorf" and picked[2].renders == str(tmp_path.resolve())
    with pytest.raises(DataError, match="no method 'nonsense'"):
        pick_methods(("nonsense",), {})
    with pytest.raises(DataError, match="call the folder otherwise"):
        pick_methods(("base",), {"base": str(tmp_path)})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("methods: {a: {nerfstudio: x, colour: red}}", "no key 'colour'"),
        ("methods: {a: {label: x}}", "either `nerfstudio` or `renders`"),
        ("methods: {a: {nerfstudio: x, rounds: 2}}", "must be 0, 1 or absent"),
        ("methods: {a/b: {nerfstudio: x}}", "a/b"),
        ("methods: [", "cannot read the methods"),
        ("tables: {}", "needs `methods`"),
    ],
)
def test_a_damaged_file_is_an_error(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "methods.yaml"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        load_methods(path)


def test_no_steps_are_refused() -> None:
    with pytest.raises(CloseupError, match="at least one base step"):
        Budget(0, 3, 10)
