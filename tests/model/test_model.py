"""The model: loads in place, saves its pixel and honours it, and every option trains."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
import torch

from closeup_ns.method_config import closeup_gs_2dgs, closeup_gs_quick
from closeup_ns.model.kernel import PixelKernel, box_average
from closeup_ns.model.model import CloseupModel
from closeup_ns.model.regularize import finest_footprint
from closeup_ns.rendering.rasterize import rasterization
from closeup_ns.rounds.trials.trial import run_steps
from closeup_ns.studio.trainer import CloseupTrainer
from tests.rounds.test_trial import assert_parameters_are_optimized, bits
from tests.tiny import an_injected_view, run_in
from tests.trainers import MakeTrainer


def copy_of_state(model: CloseupModel, gaussians: int | None = None) -> dict[str, torch.Tensor]:
    """A state to load, with another number of Gaussians where one is given."""
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    if gaussians is not None:
        for name in list(state):
            if name.startswith("gauss_params."):
                state[name] = state[name][:gaussians]
    return state


def test_loading_keeps_the_parameters_that_the_optimizers_hold(trainer: CloseupTrainer) -> None:
    model = trainer.pipeline.model
    state = copy_of_state(model, 300)
    identities = {name: id(parameter) for name, parameter in model.gauss_params.items()}
    model.load_state_dict(dict(state))
    assert {name: id(parameter) for name, parameter in model.gauss_params.items()} == identities
    assert model.num_points == 300
    for name, parameter in model.gauss_params.items():
        assert torch.equal(parameter, state[f"gauss_params.{name}"])
    assert_parameters_are_optimized(trainer)
    run_steps(run_in(trainer), 0, 2, "test")
    assert not torch.equal(model.means, state["gauss_params.means"])


def test_a_picture_with_opacity_gives_the_render_before_its_background(trainer: CloseupTrainer) -> None:
    model = trainer.pipeline.model
    model.eval()
    outputs = model.get_outputs_for_camera(trainer.pipeline.datamanager.train_dataset.cameras[0:1])
    outputs["rgb"] = outputs["rgb"] - (1 - outputs["accumulation"]) * (outputs["background"] - 0.5)
    outputs["background"] = torch.full_like(outputs["rgb"], 0.5)
    color, alpha = model.get_rgba_image(outputs).split((3, 1), dim=-1)
    assert 0.05 < float(alpha.mean()) < 0.9
    torch.testing.assert_close(alpha * color + (1 - alpha) * 0.5, outputs["rgb"], atol=1e-3, rtol=0)
    assert color.min() >= 0 and color.max() <= 1


def test_the_pixel_is_saved_and_honoured(make_trainer: MakeTrainer) -> None:
    first, second = make_trainer().pipeline.model, make_trainer().pipeline.model
    view = make_trainer().pipeline.datamanager.train_view(0)
    first.kernel = PixelKernel(0.2, 2, 0.5)
    assert second.kernel != first.kernel
    second.load_state_dict(copy_of_state(first))
    assert second.kernel == first.kernel
    ours, theirs = first.render_view(view), second.render_view(view)
    assert torch.equal(ours.color, theirs.color) and torch.equal(ours.depth, theirs.depth)
    for kernel in (PixelKernel(0.3, 2, 0.5), PixelKernel(0.2, 1, 0.5), PixelKernel(0.2, 2, 0.0)):
        first.kernel = kernel
        assert not torch.equal(first.render_view(view).color, ours.color), kernel


def test_supersampling_is_a_larger_render_averaged(trainer: CloseupTrainer) -> None:
    model = trainer.pipeline.model
    view = trainer.pipeline.datamanager.train_view(0)
    large = view.scaled_to(2 * view.width, 2 * view.height)
    with torch.no_grad():
        color, alpha, _ = rasterization(
            means=model.means, quats=model.quats, **model.effective_gaussians(),
            colors=torch.cat((model.features_dc[:, None, :], model.features_rest), 1),
            viewmats=view.viewmat[None], Ks=large.K[None], width=large.width, height=large.height, eps2d=0.17,
            sh_degree=0, rasterize_mode="antialiased",
        )  # fmt: skip
    model.kernel = PixelKernel(0.17, 2, 0.0)
    rendered = model.eval().render_view(view)
    torch.testing.assert_close(rendered.alpha, box_average(alpha[0], 2)[..., 0], atol=1e-5, rtol=0)
    background = model._get_background_color()
    expected = box_average(color[0], 2) + (1 - box_average(alpha[0], 2)) * background
    torch.testing.assert_close(rendered.color, expected.clamp(0, 1), atol=1e-5, rtol=0)
    assert rendered.color.shape == (view.height, view.width, 3)


@pytest.mark.parametrize("supersample", [1, 2])
def test_rendering_a_view_changes_nothing(trainer: CloseupTrainer, supersample: int) -> None:
    model = trainer.pipeline.model
    model.kernel = PixelKernel(0.1, supersample, 0.1)
    model.train()
    before = bits(model.state_dict())
    rendered = model.render_view(trainer.pipeline.datamanager.train_view(0))
    assert model.training and bits(model.state_dict()) == before
    assert not rendered.color.requires_grad
    assert (rendered.depth[rendered.alpha == 0] == 0).all()


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "supersample": {"supersample": 2},
    "exposure": {"exposure": "on"},
    "3D filter": {"filter_3d": 0.2},
    "scale floor": {"scale_floor": 1.0},
    "cameras": {"camera_optimizer.mode": "SO3xR3"},
    "bilateral grid": {"use_bilateral_grid": True},
    "no spherical harmonics": {"sh_degree": 0},
    "random start": {"random_init": True},
    "classic": {"rasterize_mode": "classic"},
    "discs, supersample": {"supersample": 2, "normal_from": 0.0},
    "discs, distortion": {"distortion_weight": 0.01, "distortion_from": 0.0},
    "discs, exposure": {"exposure": "on"},
    "discs, cameras": {"camera_optimizer.mode": "SO3xR3"},
    "discs, no spherical harmonics": {"sh_degree": 0},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_trains(make_trainer: MakeTrainer, name: str) -> None:
    """Five steps, photographs and injected views, also where Gaussians are added."""
    changes = {f"pipeline.model.{option}": value for option, value in OPTIONS[name].items()}
    option = name.removeprefix("discs, ")
    trainer = make_trainer(**changes, method=closeup_gs_2dgs if option != name else closeup_gs_quick)
    pipeline = trainer.pipeline
    model, data = pipeline.model, pipeline.datamanager
    data.injected, data.injected_probability = [an_injected_view(data.train_view(0))], 0.3
    before = {key: value.detach().clone() for key, value in model.named_parameters()}
    losses = []
    for step in (0, 1, 2, 15, 16):
        pipeline.train()
        model.step_cb(trainer.optimizers, step)
        loss, terms, _ = trainer.train_iteration(step)
        model.step_post_backward(step)
        losses.append(float(loss.detach()))
        assert all(torch.isfinite(term).all() for term in terms.values()), terms
    assert all(0 < loss < 10 for loss in losses)
    for key, value in model.named_parameters():
        assert torch.isfinite(value).all(), key
    assert not torch.equal(before["gauss_params.means"], model.means)
    view = data.train_view(1)
    assert torch.isfinite(model.render_view(view).color).all()
    prefix = {"exposure": "exposure.", "cameras": "camera_optimizer.", "bilateral grid": "bil_grids."}.get(option)
    if prefix is not None:
        moved = [k for k, v in model.named_parameters() if k.startswith(prefix) and not torch.equal(before[k], v)]
        assert moved, f"{name} has no effect"


def test_a_photographs_exposure_is_applied_before_anything_is_clipped(make_trainer: MakeTrainer) -> None:
    """A light that saturates every photograph is white in the darker ones, too."""
    trainer = make_trainer(pipeline__model__exposure="on")
    model, data = trainer.pipeline.model, trainer.pipeline.datamanager
    model.exposure.log_gain.data[0] = -0.2
    camera, _ = data.next_train(0)
    camera.metadata = {"cam_idx": 0}
    model.train()
    with mock.patch.object(model, "_rasterize", return_value=(torch.full((4, 5, 3), 1.5), torch.ones(4, 5, 1))):
        rgb = model.get_outputs(camera)["rgb"]
    gain = model.exposure.of(0)
    assert (gain < -0.1).all() and (rgb == 1).all()


def test_generated_views_touch_no_photographs_parameters(make_trainer: MakeTrainer) -> None:
    """No ``cam_idx``: neither camera poses nor exposures of photographs may learn from a generated view."""
    trainer = make_trainer(pipeline__model__exposure="on", pipeline__model__camera_optimizer__mode="SO3xR3")
    model, data = trainer.pipeline.model, trainer.pipeline.datamanager
    data.injected, data.injected_probability, data.current_round = [an_injected_view(data.train_view(0))], 1.0, 1
    model.step_cb(trainer.optimizers, 0)
    trainer.pipeline.train()
    _, losses, _ = trainer.pipeline.get_train_loss_dict(0)
    losses["injected"].backward()
    assert model.exposure.on
    for parameter in (*model.exposure.parameters(), *model.camera_optimizer.parameters()):
        assert parameter.grad is None or not parameter.grad.any()
    assert model.gauss_params["means"].grad is not None


def test_the_scale_floor_holds_the_two_longer_axes(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(pipeline__model__scale_floor=1.0)
    model, data = trainer.pipeline.model, trainer.pipeline.datamanager
    model.gauss_params["scales"].data -= 8
    run_steps(run_in(trainer), 0, 1, "test")
    footprint = finest_footprint(model.means.detach(), data.train_views())
    middle = model.gauss_params["scales"].detach().exp().sort(-1).values[:, 1]
    assert (middle >= 0.9 * footprint).all()
    shortest = model.gauss_params["scales"].detach().exp().amin(-1)
    assert (shortest < 0.5 * footprint).any()  # the normal of a disc stays thin


def test_the_3d_filter_is_rendered_saved_and_exported(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(pipeline__model__filter_3d=0.2)
    model = trainer.pipeline.model
    run_steps(run_in(trainer), 0, 2, "test")
    effective = model.effective_gaussians()
    assert (effective["scales"] > model.gauss_params["scales"].exp()).all()
    reloaded = make_trainer(pipeline__model__filter_3d=0.2).pipeline.model
    reloaded.footprint_views = []  # what ns-render has: a checkpoint and no views to measure by
    reloaded.load_state_dict(copy_of_state(model))
    torch.testing.assert_close(reloaded.effective_gaussians(), effective)
    reloaded.eval()
    torch.testing.assert_close(reloaded.scales.exp(), effective["scales"])
    torch.testing.assert_close(reloaded.opacities.sigmoid()[:, 0], effective["opacities"], atol=1e-6, rtol=1e-4)


def test_the_evaluation_metrics_leave_out_what_cannot_be_computed(
    trainer: CloseupTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LPIPS without weights is absent, and not zero."""
    from closeup_ns.model import lazy_lpips

    def offline(**_: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr(lazy_lpips, "_real_lpips", offline)
    metrics = trainer.pipeline.get_average_eval_image_metrics()
    assert "lpips" not in metrics and metrics["psnr"] > 5 and metrics["ssim"] > 0
    assert metrics["kernel_supersample"] == trainer.pipeline.model.kernel.supersample


def test_beyond_the_originals_a_crop_has_the_last_native_pixel(trainer: CloseupTrainer) -> None:
    model = trainer.pipeline.model
    native = PixelKernel(0.125, 2, 0.5)
    assert model.kernel_of(0) == model.kernel_of(3) == model.kernel
    model.set_native_kernel(2, native)
    assert [model.kernel_of(stream) == native for stream in range(5)] == [False, False, True, True, True]
