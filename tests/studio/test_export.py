"""What other viewers show of an exported run, and what the file holds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import trimesh

from closeup_ns.cli import export
from closeup_ns.planning.target import Target
from closeup_ns.rendering.rasterize import rasterization
from closeup_ns.studio.export import VIEWER_VARIANCE, Splats, Viewer, fit, likeness, views_to_learn, write_ply
from closeup_ns.studio.loading import LoadedRun
from closeup_ns.studio.trainer import CloseupTrainer
from closeup_ns.views.view import View
from tests.integration.captures import SIZE, write_transforms
from tests.trainers import MakeTrainer


def read_back(path: Path) -> Splats:
    """The file as viewers read it: colours channel by channel, the constant one apart."""
    vertex = trimesh.load(path).metadata["_ply_raw"]["vertex"]["data"]

    def columns(*names: str) -> torch.Tensor:
        return torch.stack([torch.tensor(vertex[name].reshape(-1).copy()) for name in names], 1)

    count = len([name for name in vertex.dtype.names if name.startswith("f_rest_")])
    rest = columns(*(f"f_rest_{i}" for i in range(count))).reshape(-1, 3, count // 3).transpose(1, 2)
    return Splats(
        columns("x", "y", "z"),
        columns(*(f"rot_{i}" for i in range(4))),
        columns(*(f"scale_{i}" for i in range(3))),
        columns("opacity"),
        columns(*(f"f_dc_{i}" for i in range(3))),
        rest,
    )


@pytest.mark.parametrize("viewer", ["antialiased", "classic"])
def test_a_file_read_back_shows_the_same(viewer: Viewer, trainer: CloseupTrainer, tmp_path: Path) -> None:
    model, view = trainer.pipeline.model, trainer.pipeline.datamanager.train_view(0)
    with torch.no_grad():
        model.gauss_params["features_rest"].normal_(0, 0.1)
        model.gauss_params["means"][0] = float("nan")
        model.gauss_params["opacities"][1] = -9.0
    splats, background = Splats.of(model), model.evaluation_background()
    written = write_ply(splats, tmp_path / "a.ply", viewer)
    again = read_back(tmp_path / "a.ply")
    assert written == len(again.means) == len(splats.means) - 2
    header = (tmp_path / "a.ply").read_bytes().split(b"end_header")[0]
    assert (b"\ncomment SplatRenderMode: mip\n" in header) == (viewer == "antialiased")
    seen = Splats(*(getattr(splats, name)[2:] for name in Splats.__dataclass_fields__))
    torch.testing.assert_close(
        again.draw(view, background, viewer), seen.draw(view, background, viewer), atol=1e-4, rtol=0
    )


def test_a_viewer_draws_with_its_own_pixel_and_not_the_runs(trainer: CloseupTrainer) -> None:
    """Held to the rasteriser's own arguments: the variance, the mode, colours of the whole degree."""
    model, view = trainer.pipeline.model, trainer.pipeline.datamanager.train_view(1)
    splats, background = Splats.of(model), torch.tensor([0.2, 0.4, 0.6])
    colors = torch.cat([model.features_dc[:, None], model.features_rest], 1)
    wanted, alpha, _ = rasterization(
        model.means, model.quats, model.scales.exp(), model.opacities[:, 0].sigmoid(), colors, view.viewmat[None],
        view.K[None], view.width, view.height, eps2d=VIEWER_VARIANCE, rasterize_mode="classic", sh_degree=3,
    )  # fmt: skip
    shown = (wanted[0] + (1 - alpha[0]) * background).clamp(0, 1)
    torch.testing.assert_close(splats.draw(view, background, "classic"), shown, atol=1e-5, rtol=0)
    assert (splats.draw(view, background, "antialiased") - shown).abs().max() > 1e-3


@pytest.mark.parametrize("viewer", ["antialiased", "classic"])
def test_fitting_brings_a_viewer_nearer_to_the_run(viewer: Viewer, trainer: CloseupTrainer) -> None:
    model, data = trainer.pipeline.model, trainer.pipeline.datamanager
    with torch.no_grad():
        model.gauss_params["opacities"] += 2
        model.gauss_params["scales"] -= 1.5  # small enough for the pixel to matter
    before = {name: value.clone() for name, value in model.state_dict().items()}
    splats, background = Splats.of(model), model.evaluation_background()
    groups = views_to_learn(data.train_views(), [torch.zeros(3)], [3.0])
    assert [len(group) for group in groups] == [len(data.train_views())] * 2

    def score(some: Splats, views: list[View]) -> float:
        pairs = [(view, model.render_view(view).color, None) for view in views]
        found = likeness(some, background, viewer, pairs)
        assert found is not None
        return found

    fitted = fit(splats, model, groups, viewer, torch.Generator().manual_seed(0), steps=60)
    assert score(fitted, groups[0]) > score(splats, groups[0]) + 1
    assert torch.equal(fitted.means, splats.means) and torch.equal(fitted.quats, splats.quats)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name  # the run itself is left alone
    assert likeness(splats, background, viewer, []) is None


def test_the_table_has_the_scales_that_originals_reach(
    make_trainer: MakeTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Originals three times finer show something new at 3x, and nothing at 9x, whither the run's rounds go."""
    write_transforms(tmp_path / "finer", finer=3)
    trainer = make_trainer(data=tmp_path / "finer", pipeline__datamanager__dataparser__max_image_size=SIZE[0])
    data, model = trainer.pipeline.datamanager, trainer.pipeline.model
    assert trainer.pipeline.config.schedule.rounds == 2
    target = Target(torch.tensor([0.0, 0.0, 4.0], dtype=torch.float64), 4.0, 1.0, "made up")
    views, names = data.train_views(), data.photograph_names()
    run = LoadedRun(trainer.pipeline, model.render_view, views, names, target, tmp_path)
    learnt: list[int] = []
    monkeypatch.setattr(export, "load_run", lambda config, data: run)
    monkeypatch.setattr(export, "choose_start", lambda *given: (views[0], names[0]))
    monkeypatch.setattr(export, "fit", lambda splats, model, groups, *given: learnt.append(len(groups)) or splats)
    export.Export(tmp_path / "config.yml").main()
    heading = next(line for line in capsys.readouterr().out.splitlines() if "far" in line)
    assert [word for word in heading.split() if word != "┃"] == ["far", "3x"]
    assert learnt == [3]  # it is fitted at all of the run's scales
