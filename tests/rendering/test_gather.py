"""Fused pixels against the torch path in float64, and against the definition."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from closeup_ns.model.kernel import PixelKernel, blur_reach
from closeup_ns.rendering.backend import kernels_available
from closeup_ns.rendering.gather import can_gather, gather_pixels

from .scenes import of_thread_counts

pytestmark = pytest.mark.skipif(not kernels_available()[0], reason=kernels_available()[1])


def sampled(height: int, width: int, channels: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A render with opaque, translucent and empty samples, and some pixels that are empty throughout."""
    render = torch.rand(height, width, channels, generator=generator)
    alpha = (1.5 * torch.rand(height, width, 1, generator=generator) - 0.2).clamp(0, 1)
    alpha[: height // 3, : width // 3] = 0
    return render, alpha


def gradients(kernel: PixelKernel, render: Tensor, alpha: Tensor, weights: Tensor, parts: slice) -> list[Tensor]:
    """Values and gradients of both inputs; ``weights`` over the outputs that ``parts`` selects."""
    leaves = [tensor.clone().requires_grad_() for tensor in (render, alpha)]
    outputs = torch.cat(kernel.gather(*leaves), dim=-1)
    (outputs * weights.to(outputs))[..., parts].sum().backward()
    return [outputs.detach(), *(leaf.grad if leaf.grad is not None else torch.zeros_like(leaf) for leaf in leaves)]


def window(factor: int, variance: float, side: int = 9) -> Tensor:
    """Of a pixel that a lens blurs, for an image of ``side`` x ``side`` pixels."""
    return PixelKernel(eps2d=0.1, supersample=factor, lens_blur=variance).window(side, side).float()


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("factor", [1, 2, 3])
@pytest.mark.parametrize(
    ("variance", "taps"), [(0.0, (1.0,)), (0.115, (1.0,)), (2.0, (0.6, 0.3, -0.1)), (0.0, (0.6, 0.2))]
)
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (1, 9), (4, 2), (17, 30), (33, 21)])
def test_is_the_torch_path(size: tuple[int, int], variance: float, taps: tuple[float, ...], factor: int, channels: int,
                           generator: torch.Generator) -> None:  # fmt: skip
    height, width = size
    kernel = PixelKernel(eps2d=0.1, supersample=factor, lens_blur=variance, taps=taps)
    render, alpha = sampled(height * factor, width * factor, channels, generator)
    weights = torch.randn(height, width, channels + 1, generator=generator)
    assert can_gather(render, alpha) and not can_gather(render.double(), alpha.double())
    ours = gradients(kernel, render, alpha, weights, slice(None))
    expected = gradients(kernel, render.double(), alpha.double(), weights, slice(None))
    for mine, oracle in zip(ours, expected):
        assert mine.dtype == torch.float32 and mine.shape == oracle.shape
        torch.testing.assert_close(mine.double(), oracle, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("parts", [slice(0, 4), slice(4, 5)])
def test_one_output_alone(parts: slice, generator: torch.Generator) -> None:
    kernel = PixelKernel(eps2d=0.1, supersample=2, lens_blur=0.5)
    render, alpha = sampled(20, 26, 4, generator)
    weights = torch.randn(10, 13, 5, generator=generator)
    ours = gradients(kernel, render, alpha, weights, parts)
    expected = gradients(kernel, render.double(), alpha.double(), weights, parts)
    for mine, oracle in zip(ours, expected):
        torch.testing.assert_close(mine.double(), oracle, atol=1e-5, rtol=1e-4)


def test_backward_is_the_adjoint(generator: torch.Generator) -> None:
    """<A x, y> = <x, A* y> for three channels, where the map is linear; any unsymmetric slip at a border breaks it."""
    render, alpha = (torch.randn(22, 34, c, generator=generator).requires_grad_() for c in (3, 1))
    outputs = gather_pixels(render, alpha, 2, window(2, 1.3))
    cotangents = [torch.randn(output.shape, generator=generator) for output in outputs]
    torch.autograd.backward(outputs, cotangents)
    assert render.grad is not None and alpha.grad is not None
    forward = sum(float((a.detach().double() * b.double()).sum()) for a, b in zip(outputs, cotangents))
    gradients_of = ((render, render.grad), (alpha, alpha.grad))
    back = sum(float((a.detach().double() * grad.double()).sum()) for a, grad in gradients_of)
    assert forward == pytest.approx(back, rel=1e-5, abs=1e-4)


def test_a_flat_image_stays_flat() -> None:
    color, alpha = gather_pixels(torch.full((18, 12, 4), 0.25), torch.ones(18, 12, 1), 2, window(2, 2.0))
    torch.testing.assert_close(color, torch.full((9, 6, 4), 0.25))
    torch.testing.assert_close(alpha, torch.ones(9, 6, 1))


def test_depth_is_that_of_what_is_opaque_and_not_blurred() -> None:
    render, alpha = torch.zeros(6, 6, 4), torch.zeros(6, 6, 1)
    render[..., 3] = 7.0  # an empty sample's depth must not count
    render[2, 2, 3], render[3, 3, 3] = 1.0, 3.0
    alpha[2, 2], alpha[3, 3] = 0.75, 0.25
    depth = gather_pixels(render, alpha, 2, window(2, 0.5, 3))[0][..., 3]
    assert depth[1, 1] == pytest.approx(1.5)
    assert int((depth != 0).sum()) == 1


def test_what_is_cut_off_gets_no_gradient(generator: torch.Generator) -> None:
    render, alpha = (tensor.requires_grad_() for tensor in sampled(7, 8, 3, generator))
    color, opacity = gather_pixels(render, alpha, 3, window(3, 0.0))
    assert color.shape == (2, 2, 3)
    (color.sum() + opacity.sum()).backward()
    assert render.grad is not None and alpha.grad is not None
    for grad in (render.grad, alpha.grad):
        assert (grad[6:] == 0).all() and (grad[:, 6:] == 0).all()
        torch.testing.assert_close(grad[:6, :6], torch.full_like(grad[:6, :6], 1 / 9))


def test_thread_count_changes_no_bit(generator: torch.Generator) -> None:
    kernel = PixelKernel(eps2d=0.1, supersample=2, lens_blur=0.7)
    render, alpha = sampled(122, 90, 4, generator)
    weights = torch.randn(61, 45, 5, generator=generator)
    first, *others = of_thread_counts(lambda: gradients(kernel, render, alpha, weights, slice(None)))
    assert all(torch.equal(*pair) for other in others for pair in zip(first, other))


def test_shapes_are_checked() -> None:
    render, alpha, weights = torch.rand(8, 8, 3), torch.rand(8, 8, 1), window(2, 0.5)
    with pytest.raises(ValueError, match="alpha"):
        gather_pixels(render, alpha[..., 0], 2, weights)
    with pytest.raises(ValueError, match="window"):
        gather_pixels(render, alpha, 2, weights[1:])
    with pytest.raises(ValueError, match="window"):
        gather_pixels(render, alpha, 12, weights)
    with pytest.raises(ValueError, match="window"):
        gather_pixels(render, alpha, 2, torch.full((18,), 1 / 18))


def test_reach_stays_inside_the_image() -> None:
    assert blur_reach(0.0, 40, 40) == 0
    assert blur_reach(4.0, 40, 40) == 6
    assert blur_reach(4.0, 40, 4) == 3
    assert blur_reach(4.0, 1, 40) == 0
