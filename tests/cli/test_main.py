"""The front doors: help without weight, errors as one line; and nerfstudio finds the methods and the dataparser."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from closeup_ns.cli import main as front
from closeup_ns.errors import CloseupError


def failing(message: str = "the capture\n  is empty: take photos") -> None:
    """Raises what a command raises."""
    raise CloseupError(message)


@pytest.mark.parametrize("arguments", [[], ["-h"], ["--help"]])
def test_help_lists_every_command(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    front.main(arguments)
    printed = capsys.readouterr().out
    assert all(name in printed and summary in printed for name, (_, summary) in front.COMMANDS.items())


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from closeup_ns.cli.main import main; main(['--help']); "
        "heavy = {'torch', 'nerfstudio', 'tyro', 'numpy', 'rich'} & set(sys.modules); "
        "sys.exit(repr(heavy) if heavy else 0)"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert finished.returncode == 0, finished.stderr


def test_every_command_can_be_imported_and_says_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    for name, (entry, _) in front.COMMANDS.items():
        module, attribute = entry.split(":")
        assert callable(getattr(importlib.import_module(module), attribute)), name
        with pytest.raises(SystemExit) as left:
            front.main([name, "--help"])
        assert not left.value.code
        assert f"closeup-gs {name}" in capsys.readouterr().out


def test_our_errors_are_one_line_and_exit_1_or_when_debugging_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(front.COMMANDS, "broken", ("tests.cli.test_main:failing", "fails"))
    with pytest.raises(SystemExit, match="1"):
        front.main(["broken"])
    printed = capsys.readouterr()
    assert printed.err == "closeup-gs: the capture is empty: take photos\n" and not printed.out
    monkeypatch.setenv("CLOSEUP_DEBUG", "1")
    with pytest.raises(CloseupError):
        front.main(["broken"])


def test_an_unknown_command_names_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        front.main(["trian"])
    assert left.value.code == 2
    assert "trian" in (message := capsys.readouterr().err) and "doctor" in message


@pytest.mark.integration
@pytest.mark.parametrize(
    "first",
    ["closeup_ns.method_config", "closeup_ns.data.dataparser", "nerfstudio.data.datamanagers.full_images_datamanager"],
)
def test_every_order_of_import_registers_methods_and_dataparser(first: str) -> None:
    """nerfstudio loads plugins in the middle of its own import, where a circular import hides until it is installed."""
    methods = {"closeup-gs", "closeup-gs-quick", "closeup-gs-2dgs", "closeup-splatfacto"}
    code = (
        f"import {first}\n"
        "from nerfstudio.configs.method_configs import all_methods\n"
        "from nerfstudio.configs.dataparser_configs import all_dataparsers\n"
        f"assert {methods} <= set(all_methods), sorted(all_methods)\n"
        "assert 'closeup-data' in all_dataparsers, sorted(all_dataparsers)\n"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert finished.returncode == 0, finished.stderr
