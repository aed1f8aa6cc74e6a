"""`ns-train closeup-gs-quick` from start to end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from closeup_ns.model.kernel import PixelKernel
from tests.integration.captures import write_llff
from tests.integration.commands import Finished, fork
from tests.integration.runs import PLANNED, ROUNDS, Run, files, run_of, train_arguments

pytestmark = pytest.mark.integration


def assert_whole(run: Run) -> None:
    """Everything that the issue promises of a run's folder."""
    assert run.config.is_file()
    assert (run.folder / "dataparser_transforms.json").is_file()
    assert [path.name for path in run.folder.glob(".checkpoint-*")] == []
    for number in range(1, ROUNDS + 1):
        folder = f"round_{number}"
        report, plan = run.json(folder, "report.json"), run.json(folder, "plan.json")
        assert report["round"] == number and report["zoom"] == 3.0**number
        assert report["verdict"] == run.json(folder, "verdict.json")
        assert {"plan", "refine", "judge", "fine_tune"} <= set(report["seconds"])
        assert report["gaussians"] > 0 and report["peak_memory_mb"] > 0
        assert {"nerfstudio", "torch", "closeup-ns"} <= set(report["made_with"]["versions"])
        assert report["made_with"]["generates"] is False and len(plan["known"]) >= 10
        assert report["evaluation_psnr"]["before"] > 5 and report["evaluation_psnr"]["after"] > 5
        names = {path.stem for path in (run.rounds / folder / "views").glob("*.json")}
        assert names == set(report["views"]) and len(names) == PLANNED == len(set(names))
        assert len(plan["plans"][0]["updates"]) == len(plan["plans"][0]["frontier"]) == 2
        for kind in ("images", "renders", "after", "weights"):
            assert {path.stem for path in (run.rounds / folder / kind).glob("*.png")} == names
        assert (run.rounds / folder / "contact_sheet.png").stat().st_size > 1000
        for frame in run.json(folder, "transforms.json")["frames"]:
            assert (run.rounds / folder / frame["file_path"]).is_file()
    page = (run.rounds / "report.html").read_text()
    assert f"Round {ROUNDS}" in page and "data:image/jpeg" in page and "Still training" not in page
    loaded = run.state()
    assert loaded["step"] == 60 + ROUNDS * 12 - 1
    assert all(torch.isfinite(tensor).all() for tensor in run.model().values())


def assert_speaks_in_lines(ended: Finished) -> None:
    """In a pipe: a line per finished stage and how far training is, and nothing that moves a cursor."""
    assert not {character for character in ended.output if ord(character) < 32} - {"\n"}
    for said in ("40 (47.62%)", *(
        f"Round {number}: {stage}" for number in (1, 2) for stage in ("planned", "refined", "judged", "fine-tuned")
    )):  # fmt: skip
        assert said in ended.text, said


def test_a_run_leaves_everything_that_it_promises(finished: Run) -> None:
    assert_whole(finished)
    assert {path.name for path in finished.checkpoints()} >= {"step-000000059.ckpt", "step-000000083.ckpt"}


def test_tensorboard_has_the_rounds(finished: Run) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(finished.folder))
    events.Reload()
    assert [image for image in events.Tags()["images"] if image.startswith("Rounds/")] == [
        f"Rounds/{number} contact sheet" for number in range(1, ROUNDS + 1)
    ]
    for name, figure in (("evaluation PSNR before", "before"), ("evaluation PSNR after", "after")):
        written = [event.value for event in events.Scalars(f"Rounds/{name}")]
        reported = [finished.json(f"round_{n}", "report.json")["evaluation_psnr"][figure] for n in (1, 2)]
        assert written == pytest.approx(reported, rel=1e-5)
    shares = [events.Scalars(f"Rounds/share of {kind} pixels")[0].value for kind in ("real", "generated")]
    assert sum(shares) == pytest.approx(1)


def test_the_kernel_that_was_found_is_in_every_later_checkpoint(finished: Run) -> None:
    names = ("step-000000059.ckpt", "step-000000083.ckpt")
    kernels = [finished.state(finished.models / name)["pipeline"]["_model.screen_kernel"] for name in names]
    kernel = PixelKernel.from_tensor(kernels[0])
    assert PixelKernel.from_tensor(kernels[1]) == kernel
    assert any(kernel.variance == pytest.approx(candidate) for candidate in (0.1, 0.2, 0.3))
    assert finished.json("round_2", "report.json")["kernel"]["eps2d"] == kernel.eps2d


def test_another_layout_trains_with_no_further_flag(tmp_path: Path) -> None:
    """poses_bounds.npy alone starts from points in the cameras' frusta. The capture stays as it is.

    What is read of every layout: tests/data/test_parser_geometry.py.
    """
    write_llff(tmp_path / "capture")
    before = files(tmp_path / "capture")
    ended = fork("ns-train", *train_arguments(tmp_path / "capture", tmp_path), cwd=tmp_path)
    assert ended.code == 0, ended.output
    assert_whole(run_of(tmp_path))
    assert_speaks_in_lines(ended)
    assert files(tmp_path / "capture") == before


def test_the_same_seed_gives_the_same_plan_and_the_same_bits(capture: Path, finished: Run, tmp_path: Path) -> None:
    """Another process, another folder: on the CPU nothing may differ."""
    ended = fork("ns-train", *train_arguments(capture, tmp_path), cwd=tmp_path)
    assert ended.code == 0, ended.output
    again = run_of(tmp_path)
    for number in range(1, ROUNDS + 1):
        plans = [json.loads((r.rounds / f"round_{number}/plan.json").read_text())["plans"] for r in (finished, again)]
        for plan in plans[0] + plans[1]:
            plan.pop("seconds", None)
        assert plans[0] == plans[1]
    first, second = finished.model(), again.model()
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def test_a_second_training_in_a_used_folder_is_refused_and_changes_nothing(
    capture: Path, finished: Run, tmp_path: Path
) -> None:
    before, output = files(finished.folder), finished.folder.parents[2]
    arguments = train_arguments(capture, output, finished.folder.name, pipeline__schedule__zoom=5)
    ended = fork("ns-train", *arguments, cwd=tmp_path)
    assert ended.code == 1 and "holds a run already" in ended.text
    assert f"--load-dir {finished.models}" in ended.text and "train beside it: ns-train" in ended.text
    assert files(finished.folder) == before
