"""`closeup-gs refine`: its short options, and the table that it prints."""

from __future__ import annotations

from typing import Any

import pytest
import tyro

from closeup_ns.cli.refine import RefineStored, print_views
from closeup_ns.errors import CloseupError
from closeup_ns.refine.refiner import RefinerConfig


def configured(*arguments: str) -> RefinerConfig:
    return tyro.cli(RefineStored, args=["--load-config", "RUN", *arguments]).configuration()


def test_short_options_are_laid_over_those_of_ns_train() -> None:
    config = configured(
        "--refiner", "see3d", "--weights", "FOLDER", "--steps", "7", "--enhance", "see3d-sr",
        "--pipeline.refiner.see3d.frames", "5",
    )  # fmt: skip
    assert (config.kind, config.enhance.kind) == ("see3d", "see3d-sr")
    assert (config.see3d.weights, config.see3d.steps, config.see3d.frames) == ("FOLDER", 7, 5)
    long = configured("--pipeline.refiner.kind", "command", "--pipeline.refiner.command.run", "fix {input} {output}")
    assert (long.kind, long.command.run) == ("command", "fix {input} {output}")
    assert configured() == RefinerConfig()


def test_yes_and_no_are_said_as_to_ns_train() -> None:
    """As the error messages and the documentation say them."""
    config = configured("--pipeline.refiner.command.generates", "False", "--pipeline.refiner.see3d.cpu-offload", "True")
    assert config.see3d.cpu_offload and not config.command.generates


def test_options_of_a_part_that_was_not_chosen_are_refused() -> None:
    with pytest.raises(CloseupError, match="--weights and --steps are for --refiner see3d"):
        configured("--refiner", "command", "--weights", "x", "--steps", "3")
    assert configured("--refiner", "reliable", "--enhance", "see3d-sr", "--weights", "x").see3d.weights == "x"


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
