"""The loss of an injected view: averaged over all pixels, nothing where nothing is known; and each step's PSNR."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from pytorch_msssim import ssim as reference_ssim
from torchmetrics.image import PeakSignalNoiseRatio

from closeup_ns.model.losses import InjectedTarget, PlainPsnr, injected_view_loss

HEIGHT, WIDTH = 16, 20


def a_target(generator: torch.Generator, **changes: object) -> InjectedTarget:
    def random(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator)

    target = InjectedTarget(
        image=random(HEIGHT, WIDTH, 3),
        weight=random(HEIGHT, WIDTH),
        sparse=random(HEIGHT, WIDTH) < 0.3,
        sparse_color=random(HEIGHT, WIDTH, 3),
        footprint=1 + 2 * random(HEIGHT, WIDTH),
        sparse_weight=0.5,
        ssim_weight=0.0,
    )
    return dataclasses.replace(target, **changes)


def test_every_pixel_counts_in_the_mean(generator: torch.Generator) -> None:
    target = a_target(generator)
    rgb = torch.rand(HEIGHT, WIDTH, 3, generator=generator)
    trusted = reliable = 0.0
    for row in range(HEIGHT):
        for column in range(WIDTH):
            pixel, weight = rgb[row, column], float(target.weight[row, column])
            trusted += weight * float((pixel - target.image[row, column]).abs().sum()) / 3
            if target.sparse[row, column]:  # one real sample in footprint x footprint pixels
                error = float((pixel - target.image[row, column]).abs().sum()) / 3
                reliable += error / float(target.footprint[row, column]) ** 2
    losses = injected_view_loss(rgb, target)
    assert set(losses) == {"injected", "reliable"}
    assert float(losses["injected"]) == pytest.approx(trusted / (HEIGHT * WIDTH), rel=1e-5)
    assert float(losses["reliable"]) == pytest.approx(0.5 * reliable / (HEIGHT * WIDTH), rel=1e-5)


def test_a_view_that_knows_a_tenth_weighs_a_tenth() -> None:
    """Not normalised by the number of known pixels, which made 9x and 27x worse (quality.md)."""
    known = torch.zeros(10, 10, dtype=torch.bool)
    known[0] = True
    black, white = torch.zeros(10, 10, 3), torch.ones(10, 10, 3)
    few = InjectedTarget(white, known.float(), known, white, torch.ones(10, 10), 0.5, 0.0)
    losses = injected_view_loss(black, few)
    assert {name: float(loss) for name, loss in losses.items()} == pytest.approx({"injected": 0.1, "reliable": 0.05})


def test_what_is_not_known_has_no_loss_and_no_gradient(generator: torch.Generator) -> None:
    nothing = a_target(
        generator,
        weight=torch.zeros(HEIGHT, WIDTH),
        sparse=torch.zeros(HEIGHT, WIDTH, dtype=torch.bool),
        ssim_weight=0.2,
    )
    rgb = torch.rand(HEIGHT, WIDTH, 3, generator=generator).requires_grad_()
    losses = injected_view_loss(rgb, nothing)
    assert {float(loss) for loss in losses.values()} == {0.0}
    torch.stack(list(losses.values())).sum().backward()
    assert rgb.grad is not None and not rgb.grad.any()

    half = a_target(generator)
    half.weight[:, : WIDTH // 2] = 0
    half.sparse[:, : WIDTH // 2] = False
    rgb = rgb.detach().requires_grad_()
    torch.stack(list(injected_view_loss(rgb, half).values())).sum().backward()
    assert rgb.grad is not None
    assert not rgb.grad[:, : WIDTH // 2].any() and rgb.grad[:, WIDTH // 2 :].any()


def test_structure_counts_only_where_a_generator_made_some(generator: torch.Generator) -> None:
    target = a_target(generator, ssim_weight=0.2)
    rgb = torch.rand(HEIGHT, WIDTH, 3, generator=generator)
    images = (image.permute(2, 0, 1)[None] for image in (rgb, target.image))
    structure = reference_ssim(*images, data_range=1.0, size_average=True)
    expected = 0.2 * float(target.weight.mean()) * (1 - float(structure))
    assert float(injected_view_loss(rgb, target)["injected_ssim"]) == pytest.approx(expected, rel=1e-3)
    assert "injected_ssim" not in injected_view_loss(rgb, a_target(generator))


def test_structure_that_nobody_trusts_is_not_learnt(generator: torch.Generator) -> None:
    """What lies where the weight is 0 (a hole, or set aside for a trial) changes neither the term nor its gradient."""
    target = a_target(generator, ssim_weight=0.2)
    target.weight[4:12, 5:15] = 0
    other = dataclasses.replace(target, image=target.image.clone())
    other.image[4:12, 5:15] = 1 - other.image[4:12, 5:15]
    rgb = torch.rand(HEIGHT, WIDTH, 3, generator=generator)
    found = []
    for each in (target, other):
        shown = rgb.clone().requires_grad_()
        loss = injected_view_loss(shown, each)["injected_ssim"]
        loss.backward()
        found.append((loss.detach(), shown.grad))
    assert torch.equal(found[0][0], found[1][0]) and torch.equal(found[0][1], found[1][1])


def test_a_weight_of_zero_leaves_the_term_out(generator: torch.Generator) -> None:
    assert set(injected_view_loss(torch.rand(HEIGHT, WIDTH, 3), a_target(generator, sparse_weight=0.0))) == {"injected"}


def test_the_psnr_of_a_step_is_torchmetrics(generator: torch.Generator) -> None:
    oracle = PeakSignalNoiseRatio(data_range=1.0)
    for shape in ((20, 30, 3), (1, 3, 12, 17)):
        image, reference = (torch.rand(shape, generator=generator) for _ in range(2))
        torch.testing.assert_close(PlainPsnr()(image, reference), oracle(image, reference))
