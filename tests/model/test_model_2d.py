"""The model of discs: flat at every step, held to surfaces when it is time, saved, exported, and never widened."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from gsplat.utils import normalized_quat_to_rotmat
from hypothesis import given
from hypothesis import strategies as st

from closeup_ns.method_config import closeup_gs_2dgs
from closeup_ns.model.kernel import PixelKernel
from closeup_ns.model.model_2d import THICKNESS, Closeup2dgsModel, shortest_axis_last
from closeup_ns.model.strategy import CloseupStrategy
from closeup_ns.rounds.injection import fine_tuning_strategy
from closeup_ns.rounds.settings import FineTuneConfig
from closeup_ns.rounds.trials.kernel_search import search_kernel
from closeup_ns.rounds.trials.trial import run_steps
from closeup_ns.studio.trainer import CloseupTrainer
from tests.model.test_model import copy_of_state
from tests.tiny import an_injected_view, run_in
from tests.trainers import MakeTrainer


@pytest.fixture
def make_2d(make_trainer: MakeTrainer) -> MakeTrainer:
    """``make_2d(**changes)``: a trainer of closeup-gs-2dgs."""

    def make(**changes: Any) -> CloseupTrainer:
        return make_trainer(method=closeup_gs_2dgs, **changes)

    return make


def model_of(trainer: CloseupTrainer) -> Closeup2dgsModel:
    model = trainer.pipeline.model
    assert isinstance(model, Closeup2dgsModel)
    return model


def assert_flat(scales: torch.Tensor) -> None:
    scales = scales.detach().exp()
    torch.testing.assert_close(scales[:, 2], THICKNESS * scales[:, :2].amin(-1))


# The third axis is the normal


@given(st.integers(0, 10_000))
def test_counting_the_axes_anew_changes_no_gaussian(seed: int) -> None:
    """The covariance is the oracle."""
    generator = torch.Generator().manual_seed(seed)
    quats = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    scales = torch.randn(6, 3, generator=generator, dtype=torch.float64)

    def covariance(quats: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
        axes = normalized_quat_to_rotmat(torch.nn.functional.normalize(quats, dim=-1)) * scales.exp()[:, None]
        return axes @ axes.mT

    turned, ordered = shortest_axis_last(quats, scales)
    torch.testing.assert_close(covariance(turned, ordered), covariance(quats, scales))
    assert (ordered.argmin(-1) == 2).all()
    twice = shortest_axis_last(turned, ordered)
    assert torch.equal(twice[0], turned) and torch.equal(twice[1], ordered)


def test_discs_are_flat_from_the_start_and_after_every_step(make_2d: MakeTrainer) -> None:
    trainer = make_2d(pipeline__model__scale_floor=1.0)
    model = model_of(trainer)
    assert_flat(model.scales)
    count = model.num_points
    run_steps(run_in(trainer), 14, 7, "test")
    assert model.num_points != count, "the test needs discs that were split or duplicated"
    assert_flat(model.scales)
    model.start_from(torch.rand(50, 3), torch.zeros(50, 3, dtype=torch.uint8))
    assert_flat(model.scales)


def test_what_is_exported_is_a_disc_with_the_3d_filter_too(make_2d: MakeTrainer) -> None:
    """`ns-export` writes the properties. Across the disc the filter would fade it to nothing."""
    trainer = make_2d(pipeline__model__filter_3d=0.2)
    model = model_of(trainer)
    run_steps(run_in(trainer), 0, 2, "test")
    model.eval()
    assert model.scales.shape == (model.num_points, 3)
    assert_flat(model.scales)
    stored = model.gauss_params["scales"].detach().exp()
    variance = 0.2 * model.footprint[:, None] ** 2
    torch.testing.assert_close(model.scales.detach().exp()[:, :2], (stored[:, :2] ** 2 + variance).sqrt())
    area = (stored[:, :2] / model.scales.detach().exp()[:, :2]).prod(-1)
    faded = model.opacities.sigmoid() / model.gauss_params["opacities"].sigmoid()
    torch.testing.assert_close(faded[:, 0].detach(), area, atol=1e-4, rtol=1e-3)


def test_ellipsoids_are_pressed_flat_and_own_checkpoints_come_back_to_the_bit(
    make_2d: MakeTrainer, make_trainer: MakeTrainer
) -> None:
    first, second = model_of(make_2d()), model_of(make_2d())
    first.kernel = PixelKernel(0.0, 2, 0.25)
    first.gauss_params["means"].data += 0.01
    second.load_state_dict(copy_of_state(first))
    for name, tensor in first.state_dict().items():
        assert torch.equal(second.state_dict()[name], tensor), name
    ellipsoids = make_trainer().pipeline.model
    ellipsoids.kernel = PixelKernel(0.1, 1, 0.2)
    ellipsoids.gauss_params["scales"].data += torch.randn(ellipsoids.num_points, 3)
    state = copy_of_state(ellipsoids)
    second.load_state_dict(dict(state))
    assert_flat(second.scales)
    two_longer = state["gauss_params.scales"].sort(-1).values[:, 1:]
    torch.testing.assert_close(second.scales.detach()[:, :2].sort(-1).values, two_longer)
    kernel = second.kernel
    assert (kernel.eps2d, kernel.supersample) == (0.0, 1) and kernel.lens_blur == pytest.approx(0.3)


# The pixel


def test_no_disc_is_widened_and_the_search_is_for_the_blur(
    make_2d: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_2d()
    model, data = model_of(trainer), trainer.pipeline.datamanager
    for supersample in (1, 2):
        assert (model.kernel.eps2d, model.kernel.supersample) == (0.0, supersample)
        assert model.kernel.lens_blur == pytest.approx(model.config.pixel_variance)
        model.start_supersampling()
    tried: list[PixelKernel] = []

    def psnr(pipeline: Any, indices: Any) -> float:
        tried.append(pipeline.model.kernel)
        return -abs(pipeline.model.kernel.lens_blur - 0.4)

    monkeypatch.setattr("closeup_ns.rounds.trials.kernel_search.photograph_psnr", psnr)
    data.hold_out([0])
    monkeypatch.setattr("closeup_ns.rounds.trials.kernel_search.TOLERANCE", 0.0)
    search_kernel(run_in(trainer), 0, trial_steps=1)
    assert all(kernel.eps2d == 0 for kernel in tried) and len({kernel.lens_blur for kernel in tried}) == len(tried)
    assert model.kernel.lens_blur == pytest.approx(0.4)


@pytest.mark.parametrize(
    "change",
    [{"rasterize_mode": "antialiased"}, {"eps2d": 0.1}, {"use_absgrad": True}, {"use_scale_regularization": True}],
)
def test_what_discs_do_not_have_is_refused(make_2d: MakeTrainer, change: dict[str, Any]) -> None:
    (option,) = change
    with pytest.raises(ValueError, match=f"closeup-gs-2dgs: model.{option}"):
        make_2d(**{f"pipeline.model.{name}": value for name, value in change.items()})


# Densification


def test_densification_goes_by_the_gradient_of_2dgs(make_2d: MakeTrainer) -> None:
    trainer = make_2d(pipeline__model__warmup_length=1000)
    model = model_of(trainer)
    for strategy in (
        model.strategy,
        fine_tuning_strategy(model, FineTuneConfig(), 0, 10, densifies=True, max_gaussians=10**6),
    ):
        assert isinstance(strategy, CloseupStrategy)
        assert strategy.key_for_gradient == "gradient_2dgs" and not strategy.absgrad
    run_steps(run_in(trainer), 0, 1, "test")
    gradient = model.info["gradient_2dgs"].grad
    half_size = torch.tensor([model.info["width"], model.info["height"]]) / 2
    expected = torch.where(model.info["radii"][0] > 0, (gradient[0] * half_size).norm(dim=-1), 0.0)
    torch.testing.assert_close(model.strategy_state["grad2d"], expected)
    assert expected.any()


# The regularisers


@pytest.mark.parametrize("injected", [False, True], ids=["photograph", "close-up"])
def test_each_regulariser_starts_when_it_is_time_on_every_view(make_2d: MakeTrainer, injected: bool) -> None:
    trainer = make_2d(
        pipeline__model__distortion_weight=0.01,
        pipeline__model__distortion_from=0.1,
        pipeline__model__normal_from=0.5,
    )
    pipeline, model, data = trainer.pipeline, model_of(trainer), trainer.pipeline.datamanager
    data.injected, data.injected_probability = [an_injected_view(data.train_view(0))], float(injected)
    assert model.base_steps == 60
    for step, expected in (
        (5, set()),
        (6, {"distortion"}),
        (29, {"distortion"}),
        (30, {"distortion", "normal_consistency"}),
    ):
        pipeline.train()
        model.step_cb(trainer.optimizers, step)
        _, losses, _ = pipeline.get_train_loss_dict(step)
        assert losses.keys() & {"distortion", "normal_consistency"} == expected
        assert ("injected" in losses) is injected
        for name in expected:
            assert torch.isfinite(losses[name]) and 0 <= float(losses[name].detach()) < 1
            (gradient,) = torch.autograd.grad(losses[name], model.means, retain_graph=True)
            assert torch.isfinite(gradient).all() and gradient.any(), name
    model.eval()
    camera, batch = data.next_eval(0)
    assert not model.get_loss_dict(model(camera), batch).keys() & {"distortion", "normal_consistency"}


def test_normal_consistency_turns_discs_into_the_wall(make_2d: MakeTrainer) -> None:
    """Alone, it makes the blended normals agree with those of the depth."""
    trainer = make_2d(pipeline__model__normal_weight=1.0, pipeline__model__normal_from=0.0)
    model, pipeline = model_of(trainer), trainer.pipeline
    model.gauss_params["opacities"].data += 4
    optimizer = torch.optim.Adam([model.gauss_params["quats"]], lr=0.02)
    losses = []
    camera, batch = pipeline.datamanager.next_train(0)
    model.train()
    for _ in range(25):
        loss = model.get_loss_dict(model(camera), batch)["normal_consistency"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]


# Rendering


@pytest.mark.parametrize("supersample", [1, 2])
def test_a_view_has_normals_that_face_the_camera(make_2d: MakeTrainer, supersample: int) -> None:
    trainer = make_2d()
    model, view = model_of(trainer), trainer.pipeline.datamanager.train_view(0)
    model.kernel = PixelKernel(0.0, supersample, 0.1)
    rendered = model.render_view(view)
    assert rendered.color.shape == (view.height, view.width, 3) and rendered.alpha.max() > 0.1
    assert torch.isfinite(rendered.color).all() and torch.isfinite(rendered.depth).all()
    model.eval()
    outputs = model.get_outputs_for_camera(trainer.pipeline.datamanager.train_dataset.cameras[0:1])
    for name in ("normals", "surface_normals"):
        picture = outputs[name]
        assert picture.shape == (view.height, view.width, 3) and picture.min() >= 0 and picture.max() <= 1
        seen = picture.any(-1)
        lengths = (2 * picture[seen] - 1).norm(dim=-1)
        torch.testing.assert_close(lengths, torch.ones_like(lengths), atol=1e-4, rtol=0)
    assert not outputs["normals"][outputs["accumulation"][..., 0] == 0].any()
    toward = (2 * outputs["normals"] - 1)[rendered.alpha > 0.3] @ view.c2w[:3, 2]
    assert (toward < 0).float().mean() > 0.95


def test_a_crop_box_around_nothing_shows_nothing(make_2d: MakeTrainer) -> None:
    from nerfstudio.data.scene_box import OrientedBox

    trainer = make_2d()
    model = model_of(trainer).eval()
    camera = trainer.pipeline.datamanager.train_dataset.cameras[0:1]
    assert model.get_outputs_for_camera(camera)["normals"].any()
    nowhere = OrientedBox(R=torch.eye(3), T=torch.full((3,), 1e6), S=torch.ones(3))
    outputs = model.get_outputs_for_camera(camera, obb_box=nowhere)
    assert outputs["normals"].shape == outputs["rgb"].shape and not outputs["normals"].any()
