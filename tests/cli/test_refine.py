"""`closeup-gs refine`: its short options, and the table that it prints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tyro

from closeup_ns.cli.refine import RefineStored, print_views
from closeup_ns.errors import CloseupError
from closeup_ns.refine.refiner import RefinerConfig


def configured(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> RefinerConfig:
    """What is refined with, by the command's arguments."""
    given: list[RefinerConfig] = []

    def refine(path: Path, number: int, config: RefinerConfig, *rest: object) -> Any:
        given.append(config)
        raise CloseupError("enough")

    monkeypatch.setattr("closeup_ns.studio.refine_stored.refine_stored_round", refine)
    with pytest.raises(CloseupError, match="enough"):
        tyro.cli(RefineStored, args=["--load-config", "RUN", *arguments]).main()
    return given[0]


def test_short_options_are_laid_over_those_of_ns_train(monkeypatch: pytest.MonkeyPatch) -> None:
    """Yes and no are said as to ns-train: as the error messages and the documentation say them."""
    config = configured(
        monkeypatch, "--refiner", "see3d", "--enhance", "see3d-sr", "--pipeline.refiner.see3d.weights", "FOLDER",
        "--pipeline.refiner.see3d.cpu-offload", "True", "--pipeline.refiner.command.generates", "False",
    )  # fmt: skip
    assert (config.kind, config.enhance.kind, config.see3d.weights) == ("see3d", "see3d-sr", "FOLDER")
    assert config.see3d.cpu_offload and not config.command.generates
    long = ("--pipeline.refiner.kind", "command", "--pipeline.refiner.command.run", "fix {input} {output}")
    config = configured(monkeypatch, *long)
    assert (config.kind, config.command.run) == ("command", "fix {input} {output}")
    assert configured(monkeypatch) == RefinerConfig()


def test_the_table_says_what_became_of_each_view(capsys: pytest.CaptureFixture[str]) -> None:
    view: dict[str, Any] = {
        "accepted": True, "verdict": "accepted", "reason": "agrees", "psnr_before": 20.0, "psnr_after": 21.5,
        "pass_number": 2, "frames": 7, "seconds": 3.25,
    }  # fmt: skip
    failed = {**view, "accepted": False, "verdict": "rejected", "reason": "NaN [from] the network", "psnr_after": None}
    print_views({"t0_update_00": view, "t0_update_01": failed}, "round 1: see3d [a note]")
    said = " ".join(capsys.readouterr().out.split())
    assert "round 1: see3d [a note]" in said and "20.00 -> 21.50" in said and "2, 7 pictures" in said
    assert "20.00 -> -" in said and "t0_update_01: NaN [from] the network" in said and "agrees" not in said
