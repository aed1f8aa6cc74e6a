"""What other viewers show of an exported run, and what the file holds."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import trimesh

from closeup_ns.cli import export
from closeup_ns.cli.main import main
from closeup_ns.errors import CloseupError, DiskError
from closeup_ns.model.kernel import PixelKernel
from closeup_ns.planning.target import Target
from closeup_ns.rendering.rasterize import rasterization
from closeup_ns.rounds.store.native import CutView, NativeStore
from closeup_ns.rounds.store.rounds import RoundStore
from closeup_ns.studio.datamanager import views_remembered
from closeup_ns.studio.export import Splats, Viewer, fit, likeness, pictures_to_learn, renders_to_learn, write_ply
from closeup_ns.studio.loading import LoadedRun, load_run
from closeup_ns.studio.trainer import CloseupTrainer
from tests.integration.captures import SIZE, write_transforms
from tests.tiny import run_in, tiny_trainer
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


@pytest.mark.parametrize("viewer", get_args(Viewer))
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
    assert (b"\ncomment SplatRenderMode: mip\n" in header) == (viewer != "classic")
    seen = Splats(*(getattr(splats, name)[2:] for name in Splats.__dataclass_fields__))
    torch.testing.assert_close(
        again.draw(view, background, viewer), seen.draw(view, background, viewer), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("degree", [0, 3])
def test_a_viewer_draws_with_its_own_pixel_and_not_the_runs(degree: int, make_trainer: MakeTrainer) -> None:
    """Held to the rasteriser's own arguments: the variance, the mode, colours of the whole degree, or as they are."""
    trainer = make_trainer(pipeline__model__sh_degree=degree)
    model, view = trainer.pipeline.model, trainer.pipeline.datamanager.train_view(1)
    splats, background = Splats.of(model), torch.tensor([0.2, 0.4, 0.6])
    colors = torch.cat([model.features_dc[:, None], model.features_rest], 1) if degree else model.features_dc.sigmoid()
    modes: dict[Viewer, tuple[float, Any]] = {
        "classic": (0.3, "classic"), "antialiased": (0.3, "antialiased"), "supersplat": (0.075, "antialiased")
    }  # fmt: skip
    for viewer, (variance, mode) in modes.items():
        wanted, alpha, _ = rasterization(
            model.means, model.quats, model.scales.exp(), model.opacities[:, 0].sigmoid(), colors, view.viewmat[None],
            view.K[None], view.width, view.height, eps2d=variance, rasterize_mode=mode, sh_degree=degree or None,
        )  # fmt: skip
        shown = (wanted[0] + (1 - alpha[0]) * background).clamp(0, 1)
        torch.testing.assert_close(splats.draw(view, background, viewer), shown, atol=1e-5, rtol=0)


@pytest.mark.parametrize("viewer", ["antialiased", "classic"])
def test_fitting_brings_a_viewer_nearer_to_the_pictures(viewer: Viewer, trainer: CloseupTrainer) -> None:
    model, data = trainer.pipeline.model, trainer.pipeline.datamanager
    with torch.no_grad():
        model.gauss_params["opacities"] += 2
        model.gauss_params["scales"] -= 1.5  # small enough for the pixel to matter
    before = {name: value.clone() for name, value in model.state_dict().items()}
    splats, background = Splats.of(model), model.evaluation_background()
    pictures = [(view, model.render_view(view).color, None) for view in data.train_views()]
    groups = [[lambda picture=picture: picture for picture in pictures]]
    fitted = fit(splats, background, groups, viewer, torch.Generator().manual_seed(0), steps=60)
    was, now = (likeness(some, background, viewer, pictures) for some in (splats, fitted))
    assert was is not None and now is not None and now > was + 1
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name  # the run itself is left alone
    assert likeness(splats, background, viewer, []) is None


def test_what_masks_hide_teaches_nothing(trainer: CloseupTrainer) -> None:
    splats, view = Splats.of(trainer.pipeline.model), trainer.pipeline.datamanager.train_view(0)
    hidden = view, torch.rand(view.height, view.width, 3), torch.zeros(view.height, view.width, dtype=torch.bool)
    fitted = fit(splats, torch.zeros(3), [[lambda: hidden]], "classic", torch.Generator(), steps=2)
    for name in Splats.__dataclass_fields__:
        assert torch.equal(getattr(fitted, name), getattr(splats, name)), name


def test_it_learns_photographs_and_native_views_at_the_models_exposure(trainer: CloseupTrainer, tmp_path: Path) -> None:
    """A native view keeps the camera and the size of its crop; close-ups are drawn with the photographs' pixel."""
    run, data = run_in(trainer), trainer.pipeline.datamanager
    gain = 0.1 * torch.randn(len(data.train_dataset), 3, generator=torch.Generator().manual_seed(0))
    run.model.exposure.start(gain - gain.mean(0))
    run.model.set_native_kernel(1, PixelKernel.of(1.0))
    data.cached_train[1]["mask"] = torch.rand(*SIZE[::-1], 1) < 0.5
    store, crop = NativeStore(tmp_path), data.train_view(2).resized(24)
    pixels = torch.randint(256, (crop.height, crop.width, 3), dtype=torch.uint8)
    store.save(2, [CutView(data.photograph_names()[2], "a", crop, pixels.numpy(), None, 1.0)])
    target = run.model.means.detach().mean(0)
    far, rendered, closer, nearest = pictures_to_learn(run, store, target)
    assert len(far) == len(rendered) == len(nearest) == len(gain) and len(closer) == 1  # round 1 has none
    view, image, counted = rendered[1]()
    torch.testing.assert_close(3 * (view.position - target), data.train_view(1).position - target)
    assert torch.equal(image, run.model.render_view(view).color) and counted is None
    assert image.std() > 0.01  # the scene is in it
    view, image, counted = far[1]()
    assert view.width == SIZE[0] and counted is not None and torch.equal(counted, data.cached_train[1]["mask"][..., 0])
    torch.testing.assert_close(run.model.exposure(image, 1), data.photograph(1), atol=0.02, rtol=0)
    assert (image - data.photograph(1)).abs().mean() > 0.01
    view, image, counted = closer[0]()
    assert (view.width, view.height, counted) == (crop.width, crop.height, None)
    torch.testing.assert_close(view.K, crop.K)
    torch.testing.assert_close(image, run.model.unexposed(pixels / 255, 2))


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
    monkeypatch.setattr(export, "load_run", lambda config, data: run)
    monkeypatch.setattr(export, "choose_start", lambda *given: (views[0], names[0]))
    monkeypatch.setattr(export, "fit", lambda splats, *given: splats)
    written = export.Export(tmp_path / "config.yml", viewer="supersplat").main()
    assert all(written.with_suffix(kind).is_file() for kind in (".ply", ".json"))
    heading = next(line for line in capsys.readouterr().out.splitlines() if "far" in line)
    assert [word for word in heading.split() if word != "┃"] == ["far", "3x"]
    monkeypatch.delattr(export, "fit")
    with pytest.raises(DiskError, match="transforms.json"):  # before the fit: a folder that is none
        export.Export(tmp_path / "config.yml", output=tmp_path / "finer" / "transforms.json" / "a.ply").main()


def test_only_a_ply_is_written(tmp_path: Path) -> None:
    for name in ("a.json", "a.splat", "a"):
        with pytest.raises(CloseupError, match=rf"{name}' is no \.ply"):
            export.Export(tmp_path / "config.yml", output=tmp_path / name).main()


GONE = "the photographs of this run are not on disk: fitted to its own renders alone"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a capture and a run of it, of one round, which was moved as a whole since."""
    folder = tmp_path_factory.mktemp("trained")
    write_transforms(folder / "made/capture")
    trainer = tiny_trainer(folder / "made/capture", folder / "made/outputs", pipeline__schedule__rounds=1)
    trainer.config.save_config()
    model = trainer.pipeline.model
    with torch.no_grad():
        model.gauss_params["opacities"] += 2
        model.gauss_params["scales"] -= 1.5  # small enough for a viewer's pixel to matter
    model.set_native_kernel(1, PixelKernel.of(1.0))
    trainer.save_checkpoint(9)
    target = Target(model.means.detach().mean(0), 4.0, 1.0, "made up")
    RoundStore(trainer.base_dir / "rounds").save_targets([target.to_dict()])
    return Path(shutil.move(folder / "made", folder / "project"))


def project_in(folder: Path, trained: Path) -> tuple[Path, Path]:
    """A copy of ``trained``: the capture, and the run's config.yml."""
    shutil.copytree(trained, folder / "project")
    return folder / "project/capture", next((folder / "project/outputs").glob("*/*/*/config.yml"))


def test_a_run_whose_photographs_are_gone_is_fitted_to_its_own_renders(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    capture, config = project_in(tmp_path, trained)
    run = load_run(config)
    background = run.model.evaluation_background()
    state = torch.load(next(config.parent.glob("*/*.ckpt")), weights_only=True)["pipeline"]
    for kept, view in zip(views_remembered(state["datamanager.cameras"]), run.train_views, strict=True):
        assert torch.equal(kept.K, view.K) and torch.equal(kept.c2w, view.c2w)
        assert (kept.width, kept.height) == (view.width, view.height) == SIZE
    shutil.rmtree(capture)
    capsys.readouterr()
    monkeypatch.setattr(export, "fit", partial(fit, steps=100))
    main(["export", "--load-config", str(config), "--for", "classic"])
    said = capsys.readouterr().out
    assert said.splitlines().count(GONE) == 1 and "on the run's own renders" in " ".join(said.split())
    heading = next(line for line in said.splitlines() if "far" in line)
    assert [word for word in heading.split() if word != "┃"] == ["far", "3x"]
    fitted = read_back(config.parent / "splat-classic.ply")
    renders = renders_to_learn(run.model, run.train_views, run.target.point, run.config.schedule)
    for group, gain in zip(renders, (5, -0.5), strict=True):  # near, a viewer's pixel hardly matters: little to gain
        pairs = [make() for make in group]
        was, now = (likeness(some, background, "classic", pairs) for some in (Splats.of(run.model), fitted))
        assert was is not None and now is not None and now > was + gain


def broken(capture: Path, config: Path) -> None:
    (capture / "transforms.json").write_text("{")


def one_photograph_lost(capture: Path, config: Path) -> None:
    (capture / "images/frame_00004.png").unlink()


def checkpoint_lost(capture: Path, config: Path) -> None:
    shutil.rmtree(capture)
    shutil.rmtree(config.parent / "nerfstudio_models")


def checkpoint_cut(capture: Path, config: Path) -> None:
    shutil.rmtree(capture)
    checkpoint = next(config.parent.glob("*/*.ckpt"))
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])


def cameras_lost(capture: Path, config: Path) -> None:
    """As in a run of an earlier version."""
    shutil.rmtree(capture)
    checkpoint = next(config.parent.glob("*/*.ckpt"))
    state = torch.load(checkpoint, weights_only=True)
    del state["pipeline"]["datamanager.cameras"]
    torch.save(state, checkpoint)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (broken, r"transforms\.json cannot be read"),
        (one_photograph_lost, r"frame_00004\.png"),
        (checkpoint_lost, "no checkpoint"),
        (checkpoint_cut, "cut short"),
        (cameras_lost, "datamanager.cameras"),
    ],
)
def test_what_is_damaged_is_no_run_without_photographs(
    damage: Callable[[Path, Path], None],
    reason: str,
    trained: Path,
    tmp_path: Path,
) -> None:
    capture, config = project_in(tmp_path, trained)
    damage(capture, config)
    with pytest.raises(CloseupError, match=reason):
        export.Export(config).main()
    assert not list(config.parent.glob("*.ply"))


def test_a_place_that_is_given_and_holds_no_photographs_is_an_error(trained: Path, tmp_path: Path) -> None:
    capture, config = project_in(tmp_path, trained)
    shutil.rmtree(capture)
    with pytest.raises(CloseupError, match="not at .*nowhere"):
        export.Export(config, data=tmp_path / "nowhere").main()
