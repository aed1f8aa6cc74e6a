"""Densification with a ceiling, in steps that count, and by halves; gsplat's own strategy is the oracle."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from gsplat.strategy import DefaultStrategy
from gsplat.strategy.ops import split
from gsplat.utils import normalized_quat_to_rotmat
from hypothesis import given, settings
from hypothesis import strategies as st

from closeup_ns.model.strategy import NEVER, CloseupStrategy, HalvingStrategy, halve, halved_opacity
from closeup_ns.rendering.rasterize import rasterization

COUNT = 40
STEP = 10


class Splats:
    """Gaussians with optimizers, and the info of one render, as gsplat's strategies want them."""

    def __init__(self, seed: int, small: bool | None = None) -> None:
        generator = torch.Generator().manual_seed(seed)

        def random(*shape: int) -> torch.Tensor:
            return torch.randn(COUNT, *shape, generator=generator)

        size = {None: random(3), True: random(3) - 20, False: random(3) + 20}[small]
        values = {"means": random(3), "scales": size, "quats": random(4), "opacities": random(1) + 5}
        self.params = torch.nn.ParameterDict({name: torch.nn.Parameter(value) for name, value in values.items()})
        self.optimizers = {name: torch.optim.Adam([self.params[name]]) for name in values}
        self.means2d = torch.zeros(1, COUNT, 2)
        self.gradients = torch.rand(1, COUNT, 2, generator=generator)
        self.means2d.absgrad = self.gradients.clone()  # type: ignore[attr-defined]
        self.info: dict[str, Any] = {
            "width": 64, "height": 48, "n_cameras": 1, "gaussian_ids": None, "means2d": self.means2d,
            "radii": torch.randint(0, 30, (1, COUNT), generator=generator),
        }  # fmt: skip

    def step(self, strategy: DefaultStrategy, state: dict[str, Any], step: int = STEP) -> None:
        torch.manual_seed(0)
        strategy.step_post_backward(self.params, self.optimizers, state, step, self.info)  # type: ignore[arg-type]


def settings_of(**changes: Any) -> dict[str, Any]:
    return {
        "refine_start_iter": 0, "refine_every": STEP, "reset_every": NEVER, "absgrad": True, "grow_grad2d": 3.0,
        "grow_scale3d": 1.0, "prune_opa": 0.0, **changes,
    }  # fmt: skip


def grow(splats: Splats, strategy: DefaultStrategy) -> int:
    splats.step(strategy, strategy.initialize_state())
    return len(splats.params["means"])


@pytest.mark.parametrize("ceiling", [0, 10_000])
def test_with_room_enough_it_is_gsplats_own(ceiling: int) -> None:
    ours, theirs = Splats(1), Splats(1)
    after = grow(ours, CloseupStrategy(**settings_of(max_gaussians=ceiling)))
    assert after == grow(theirs, DefaultStrategy(**settings_of())) > COUNT
    for name in ours.params:
        assert torch.equal(ours.params[name], theirs.params[name])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.integers(-5, COUNT + 5), st.booleans())
def test_growth_never_passes_the_ceiling(seed: int, room: int, by_size: bool) -> None:
    """Neither growth by gradient nor growth of what looks large on the screen."""
    changes = {"refine_scale2d_stop_iter": NEVER, "grow_scale2d": 0.2} if by_size else {}
    strategy = CloseupStrategy(**settings_of(max_gaussians=COUNT + room, **changes))
    assert COUNT <= grow(Splats(seed), strategy) <= max(COUNT + room, COUNT)
    assert strategy.grow_grad2d == 3.0
    assert strategy.refine_scale2d_stop_iter == changes.get("refine_scale2d_stop_iter", 0)


def test_the_neediest_grow() -> None:
    splats = Splats(2, small=True)
    splats.info["radii"] = torch.ones(1, COUNT)
    means = splats.params["means"].detach().clone()
    need = (splats.gradients[0] * torch.tensor([32.0, 24.0])).norm(dim=-1)
    after = grow(splats, CloseupStrategy(**settings_of(max_gaussians=COUNT + 6)))
    assert COUNT < after <= COUNT + 6
    grown = {tuple(row) for row in splats.params["means"][COUNT:].tolist()}
    assert grown == {tuple(row) for row in means[need.topk(after - COUNT).indices].tolist()}


def test_steps_that_do_not_count_leave_the_statistics_alone() -> None:
    splats = Splats(3)
    strategy = CloseupStrategy(**settings_of(refine_scale2d_stop_iter=NEVER))
    state = strategy.initialize_state()
    strategy.counts_this_step = False
    splats.step(strategy, state, step=1)
    assert not state["grad2d"].any() and not state["count"].any() and not state["radii"].any()
    strategy.counts_this_step = True
    splats.step(strategy, state, step=2)
    before = {name: state[name].clone() for name in ("grad2d", "count", "radii")}
    assert all(value.any() for value in before.values())
    strategy.counts_this_step = False
    splats.step(strategy, state, step=3)
    assert all(torch.equal(state[name], value) for name, value in before.items())


def test_when_no_step_counted_nothing_grows() -> None:
    splats = Splats(4)
    strategy = CloseupStrategy(**settings_of(counts_this_step=False))
    assert grow(splats, strategy) == COUNT


@pytest.mark.xfail(strict=True, reason="gsplat resets where step % reset_every == 0, and that holds for step 0 too")
def test_where_resets_are_off_no_opacity_is_ever_reset() -> None:
    """Otherwise a run starts at opacities of 2 * prune_opa (0.04 in quick) instead of the 0.1 it was given."""
    splats = Splats(6)
    before = splats.params["opacities"].detach().clone()
    strategy = CloseupStrategy(**settings_of(reset_every=NEVER, prune_opa=0.02))
    splats.step(strategy, strategy.initialize_state(), step=0)
    assert torch.equal(splats.params["opacities"], before)


def test_a_step_that_gathers_no_gradients_needs_no_absolute_ones() -> None:
    """What `gathers_gradients` promises the rasteriser: without them such a step still goes through."""
    splats = Splats(0)
    del splats.means2d.absgrad  # type: ignore[attr-defined]
    for changes, step in (({"counts_this_step": False}, 1), ({"refine_stop_iter": 2}, 2)):
        strategy = CloseupStrategy(**settings_of(**changes))
        assert not strategy.gathers_gradients(step)
        splats.step(strategy, strategy.initialize_state(), step=step)
    strategy = CloseupStrategy(**settings_of(refine_stop_iter=2))
    assert strategy.gathers_gradients(1)
    with pytest.raises(AttributeError, match="absgrad"):
        splats.step(strategy, strategy.initialize_state(), step=1)


# ---- halves


def covariances(splats: Splats) -> torch.Tensor:
    axes = normalized_quat_to_rotmat(torch.nn.functional.normalize(splats.params["quats"], dim=-1))
    return axes @ torch.diag_embed((2 * splats.params["scales"]).exp()) @ axes.mT


def test_two_halves_have_the_mean_and_the_covariance_of_the_whole() -> None:
    splats, chosen = Splats(7), torch.arange(COUNT) % 3 == 0
    mean, covariance = splats.params["means"][chosen], covariances(splats)[chosen]
    halve(splats.params, splats.optimizers, {}, chosen)
    count = int(chosen.sum())
    means = splats.params["means"][-2 * count :].view(2, count, 3)
    spread = (means - mean)[..., :, None] * (means - mean)[..., None, :]
    torch.testing.assert_close(means.mean(0), mean)
    torch.testing.assert_close((covariances(splats)[-2 * count :].view(2, count, 3, 3) + spread).mean(0), covariance)


@given(st.floats(0.0, 1.0))
def test_two_halves_stop_as_much_light_as_the_whole(opacity: float) -> None:
    x = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    half = halved_opacity(torch.tensor(opacity, dtype=torch.float64))
    passed = [1 - half * (-((x - side * 0.5**0.5) ** 2)).exp() for side in (-1, 1)]
    whole = opacity * (-(x**2) / 2).exp()
    assert 0 <= float(half) <= 1
    assert float((1 - passed[0] * passed[1]).sum()) == pytest.approx(float(whole.sum()), abs=1e-9)


def seen(splats: Splats) -> torch.Tensor:
    """Alpha of the splats, drawn by the CPU kernels."""
    params = {name: value.detach() for name, value in splats.params.items()}
    K = torch.tensor([[[60.0, 0.0, 32.0], [0.0, 60.0, 24.0], [0.0, 0.0, 1.0]]])
    opacities = params["opacities"].sigmoid().squeeze(1)
    means = params["means"] + torch.tensor([0.0, 0.0, 8.0])
    colors = torch.ones(len(means), 1)
    scene = means, params["quats"], params["scales"].exp(), opacities, colors, torch.eye(4)[None], K, 64, 48
    return rasterization(*scene, backend="cpu")[1]


@pytest.mark.parametrize("logit", [-3.0, 0.0, 3.0])
def test_halving_changes_a_third_of_what_gsplats_growth_changes(logit: float) -> None:
    """Growth that one sees costs a round the steps in which it is mended."""
    changes = []
    for grow_them in (lambda it, chosen: halve(it.params, it.optimizers, {}, chosen), split_as_gsplat):
        splats = Splats(8)
        splats.params["scales"].data -= 1.5
        splats.params["opacities"].data.fill_(logit)
        before = seen(splats)
        grow_them(splats, torch.ones(COUNT, dtype=torch.bool))
        changes.append(float((seen(splats) - before).square().mean().sqrt()))
    ours, theirs = changes
    assert ours < theirs / 3


def split_as_gsplat(splats: Splats, chosen: torch.Tensor) -> None:
    torch.manual_seed(0)
    split(splats.params, splats.optimizers, {}, chosen)  # type: ignore[arg-type]


def test_halves_keep_adams_moments_and_everything_else_that_the_whole_had() -> None:
    splats, chosen = Splats(9), torch.arange(COUNT) < 5
    for name, optimizer in splats.optimizers.items():
        splats.params[name].grad = torch.randn(splats.params[name].shape)
        optimizer.step()
    quats = splats.params["quats"].detach().clone()
    moments = {name: splats.optimizers[name].state[splats.params[name]]["exp_avg"].clone() for name in splats.params}
    state: dict[str, Any] = {"grad2d": torch.arange(COUNT), "scene_scale": 1.0}
    halve(splats.params, splats.optimizers, state, chosen)
    order = [*range(5, COUNT), *range(5), *range(5)]
    assert torch.equal(splats.params["quats"], quats[order]) and torch.equal(state["grad2d"], torch.tensor(order))
    for name, moment in moments.items():
        parameter = splats.optimizers[name].param_groups[0]["params"][0]
        assert parameter is splats.params[name]
        assert torch.equal(splats.optimizers[name].state[parameter]["exp_avg"], moment[order])


@pytest.mark.parametrize("room", [-3, 0, 1, 6, 10_000])
def test_the_neediest_are_halved_up_to_the_ceiling(room: int) -> None:
    splats = Splats(10)
    splats.info["radii"] = torch.ones(1, COUNT)
    need = (splats.gradients[0] * torch.tensor([32.0, 24.0])).norm(dim=-1)
    wanted = int((need > 3.0).sum())
    quats = splats.params["quats"].detach().clone()
    after = grow(splats, HalvingStrategy(**settings_of(max_gaussians=COUNT + room)))
    grown = min(max(room, 0), wanted)
    assert after == COUNT + grown
    neediest = {tuple(row) for row in quats[need.topk(grown).indices].tolist()}
    assert {tuple(row) for row in splats.params["quats"][COUNT - grown :].tolist()} == neediest
