"""Exposures of photographs in a run: on where they drift and off where they do not, from points or EXIF."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from closeup_ns.data.dataset import decode_image
from closeup_ns.model.exposure import STOP, exposed
from closeup_ns.rounds.trials.trial import run_steps
from closeup_ns.rounds.views import NativeView
from closeup_ns.studio.exposure import predicted_psnr, recorded_gains
from tests.data.folders import save_image
from tests.data.test_exif import SOUND, written
from tests.integration.captures import write_transforms
from tests.tiny import run_in
from tests.trainers import MakeTrainer

TRAINED = 10
"""Photographs of the tiny capture that are trained on."""


def write_drifting(folder: Path, stops: float) -> torch.Tensor:
    """The tiny capture with drifting exposures; returns their log gains, of mean 0 over the training photographs."""
    write_transforms(folder)
    meta = json.loads((folder / "transforms.json").read_text())
    drawn = torch.randn(TRAINED, 1, generator=torch.Generator().manual_seed(0))
    gains = (stops * STOP * (drawn - drawn.mean()) / drawn.std()).expand(-1, 3)
    for name, gain in zip(meta["train_filenames"], gains, strict=True):
        image = torch.from_numpy(decode_image(folder / name)).float() / 255
        save_image(folder / name, (exposed(image, gain) * 255).round().byte().numpy())
    return gains


@pytest.mark.parametrize(("stops", "on"), [(0.0, False), (0.3, True)])
def test_auto_follows_the_photographs(
    make_trainer: MakeTrainer, tmp_path: Path, capsys: pytest.CaptureFixture[str], stops: float, on: bool
) -> None:
    gains = write_drifting(tmp_path / "drift", stops)
    exposure = make_trainer(data=tmp_path / "drift").pipeline.model.exposure
    assert bool(exposure.on) == on
    said = " ".join(capsys.readouterr().out.split())
    assert ("each has a gain" in said) == on and ("taken to have the same" in said) != on
    if on:
        torch.testing.assert_close(exposure.log_gain.detach(), gains.contiguous(), rtol=0, atol=0.01)


def test_off_and_bilateral_grids_keep_it_off(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    write_drifting(tmp_path / "drift", 0.3)
    for changes in ({"pipeline.model.exposure": "off"}, {"pipeline.model.use_bilateral_grid": True}):
        trainer = make_trainer(data=tmp_path / "drift", output=tmp_path / next(iter(changes)), **changes)
        assert not trainer.pipeline.model.exposure.on


def test_training_keeps_what_is_known(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    """Sixty steps move the gains a little; those of photographs that are held out not at all."""
    gains = write_drifting(tmp_path / "drift", 0.3)
    trainer = make_trainer(data=tmp_path / "drift", pipeline__model__sh_degree=0)
    exposure, data = trainer.pipeline.model.exposure, trainer.pipeline.datamanager
    data.hold_out([4])
    before = exposure.log_gain.detach().clone()
    run_steps(run_in(trainer), 0, 60, "test")
    after = exposure.log_gain.detach()
    assert torch.equal(after[4], before[4])
    assert (after != before).any(1).sum() == TRAINED - 1
    torch.testing.assert_close(after - after.mean(0), gains.contiguous(), rtol=0, atol=0.05)


def test_a_native_view_has_its_photographs_exposure(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(pipeline__model__exposure="on", pipeline__model__background_color="black")
    model, data = trainer.pipeline.model.train(), trainer.pipeline.datamanager
    view, gain = data.train_view(3), torch.tensor([0.3, 0.1, -0.2])
    model.exposure.log_gain.data.zero_()
    model.exposure.log_gain.data[3], model.exposure.log_gain.data[4] = gain, -gain
    native = NativeView("n", 1, 3, view, 1.0, lambda: (torch.zeros(view.height, view.width, 3).byte(), None))
    camera, batch = data._native_batch(native)
    taken = model.get_outputs(camera)
    loss = model.get_loss_dict(taken, batch)
    camera.metadata = {"stream": 1}
    torch.testing.assert_close(taken["rgb"], exposed(model.get_outputs(camera)["rgb"], gain))
    assert float(loss["exposure"].detach()) == pytest.approx(0.01 * float(gain.square().mean()), rel=1e-4)


def test_black_photographs_train(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    write_transforms(tmp_path / "black")
    for path in (tmp_path / "black/images").iterdir():
        Image.new("RGB", Image.open(path).size).save(path)
    trainer = make_trainer(data=tmp_path / "black", pipeline__model__exposure="on")
    run_steps(run_in(trainer), 0, 5, "test")
    assert all(torch.isfinite(value).all() for value in trainer.pipeline.model.parameters())


def test_a_resumed_run_goes_on_with_its_exposures(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    write_drifting(tmp_path / "drift", 0.3)
    first = make_trainer(data=tmp_path / "drift", output=tmp_path / "first")
    run_steps(run_in(first), 0, 3, "test")
    first.save_checkpoint(2)
    again = make_trainer(data=tmp_path / "drift", output=tmp_path / "again", load_dir=first.checkpoint_dir)
    ours, theirs = first.pipeline.model.exposure, again.pipeline.model.exposure
    assert theirs.on and torch.equal(ours.log_gain, theirs.log_gain)


def write_recorded(folder: Path, lie: dict[str, Any]) -> None:
    """JPEGs whose EXIF tells exposures from 0 to 2 stops and in one ``lie``, without points."""
    write_transforms(folder, points=False)
    text = (folder / "transforms.json").read_text()
    for index, path in enumerate(sorted((folder / "images").iterdir())):
        values = SOUND | {"time": IFDRational(2 ** (index % 3), 100)} | (lie if index == 2 else {})
        written(path.with_suffix(".jpg"), values, Image.open(path))
        path.unlink()
    (folder / "transforms.json").write_text(text.replace(".png", ".jpg"))


@pytest.mark.parametrize(("lie", "on"), [({}, True), ({"iso": 20231105}, False)])
def test_exif_is_used_where_all_of_it_is_sound(
    make_trainer: MakeTrainer, tmp_path: Path, capsys: pytest.CaptureFixture[str], lie: dict[str, Any], on: bool
) -> None:
    write_recorded(tmp_path / "recorded", lie)
    exposure = make_trainer(data=tmp_path / "recorded").pipeline.model.exposure
    assert bool(exposure.on) == on
    said = " ".join(capsys.readouterr().out.split())
    assert ("EXIF says soundly how 9 of 10 photographs" in said) != on


def test_recorded_gains_are_of_the_light_and_of_mean_zero() -> None:
    found = recorded_gains([1.0, 2.0, 6.0], 3)
    torch.testing.assert_close(found[:, 0], STOP * torch.tensor([-2.0, -1.0, 3.0]))
    assert not recorded_gains([1.0, None, 6.0], 3).any() and not recorded_gains([], 3).any()


def test_exif_predicts_the_exposure_of_photographs_that_were_not_trained_on(
    make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    """With the gain of a stop that the training photographs have; darker photographs than all of them, too."""
    write_recorded(tmp_path / "recorded", {})
    pipeline = make_trainer(data=tmp_path / "recorded").pipeline
    model, data = pipeline.model, pipeline.datamanager
    stops = torch.tensor(data.train_dataset.metadata["exposure_stops"])
    model.exposure.log_gain.data = 0.1 * stops[:, None].expand(-1, 3).contiguous() + 0.7
    recorded = data.eval_dataset.metadata["exposure_stops"] = [float(stops.mean()) - 3, float(stops.mean()) + 1]
    for (view, _, _), cached, stop in zip(data.eval_photographs(), data.cached_eval, recorded, strict=True):
        gain = 0.1 * (torch.tensor(stop) - stops.mean()).expand(3)
        cached["image"] = exposed(model.render_view(view).color, gain)
    found = predicted_psnr(model, data)
    assert isinstance(found, float) and found > 80
    data.train_dataset.metadata["exposure_stops"] = [2.0] * TRAINED
    assert "exposed alike" in str(predicted_psnr(model, data))
    model.exposure.on.fill_(False)
    assert "no exposures of their own" in str(predicted_psnr(model, data))
