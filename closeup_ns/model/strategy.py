"""Densification: gsplat's strategy with a ceiling, and steps that enter no statistics; in rounds, growth by halves."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from gsplat.strategy import DefaultStrategy
from gsplat.strategy.ops import _update_param_with_optimizer
from gsplat.utils import normalized_quat_to_rotmat
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import normalize

NEVER = 10**9
"""A step that no run reaches."""


@dataclass
class CloseupStrategy(DefaultStrategy):
    """`DefaultStrategy` that never grows beyond ``max_gaussians`` and gathers gradients only in steps that count.

    In a round, statistics are gathered only from generated views within a third of the original distance
    (paper 4.3.4, papers.md 6.3 #21).
    """

    max_gaussians: int = 0
    """Most Gaussians that growth may reach; 0 means no limit."""
    counts_this_step: bool = True
    """Whether this step's gradients enter the densification statistics."""

    def gathers_gradients(self, step: int) -> bool:
        """Whether this step's screen-space gradients enter the statistics, and so must be computed."""
        return self.counts_this_step and step < self.refine_stop_iter

    def _update_state(self, params: Any, state: dict[str, Any], info: dict[str, Any], packed: bool = False) -> None:
        if self.counts_this_step:
            super()._update_state(params, state, info, packed)
            return
        for key in ("grad2d", "count", "radii"):
            if key in state and state[key] is None:
                state[key] = torch.zeros(len(params["means"]), device=params["means"].device)

    @torch.no_grad()
    def _grow_gs(self, params: Any, optimizers: Any, state: dict[str, Any], step: int) -> tuple[int, int]:
        if self.max_gaussians <= 0:
            return super()._grow_gs(params, optimizers, state, step)
        room = self.max_gaussians - len(params["means"])
        if room <= 0:
            return 0, 0
        gradients = state["grad2d"] / state["count"].clamp_min(1)
        wanted = int((gradients > self.grow_grad2d).sum())
        if step < self.refine_scale2d_stop_iter:  # one that is both duplicated and split counts twice
            wanted += int((state["radii"] > self.grow_scale2d).sum())
        before = self.grow_grad2d, self.refine_scale2d_stop_iter
        if wanted > room:  # only the neediest grow, and none for its size on the screen alone
            neediest = gradients.topk(min(room + 1, len(gradients))).values
            if len(neediest) > room:
                self.grow_grad2d = max(self.grow_grad2d, float(neediest[-1]))
            self.refine_scale2d_stop_iter = 0
        try:
            return super()._grow_gs(params, optimizers, state, step)
        finally:
            self.grow_grad2d, self.refine_scale2d_stop_iter = before


class HalvingStrategy(CloseupStrategy):
    """`CloseupStrategy` whose growth hardly changes what is seen: every Gaussian that shall grow is halved.

    For rounds, which are short and begin with a finished model. gsplat duplicates a small Gaussian, which makes it
    more opaque, and splits a large one at random places; both forget Adam's moments. On flower the first 20,000 of
    these cost 2.2 dB at 3x, 2.5 at 9x and 0.5 far, and the round spent its steps on mending that (docs/quality.md).
    """

    @torch.no_grad()
    def _grow_gs(self, params: Any, optimizers: Any, state: dict[str, Any], step: int) -> tuple[int, int]:
        gradients = state["grad2d"] / state["count"].clamp_min(1)
        chosen = gradients > self.grow_grad2d
        room = max(self.max_gaussians - len(gradients), 0)
        if int(chosen.sum()) > room:  # only the neediest
            chosen = torch.zeros_like(chosen).index_fill(0, gradients.topk(room).indices, True)
        halve(params, optimizers, state, chosen)
        return 0, int(chosen.sum())


def halved_opacity(opacity: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """The opacity of each half of a Gaussian of ``opacity``, both in [0, 1], that together stop as much light.

    A Gaussian of variance 1 along its axis becomes two of variance 1/2, at -d and d = sqrt(1/2): the mixture has the
    same mean and variance. With opacity b they stop b g(x - d) + b g(x + d) - b^2 g(x - d) g(x + d) of the light at x,
    whose integral is the Gaussian's where b^2 exp(-1) / 2 - sqrt(2) b + opacity = 0.
    """
    overlap = math.exp(-1) / 2
    return (math.sqrt(0.5) - (0.5 - overlap * opacity).sqrt()) / overlap


def halve(params: Any, optimizers: Any, state: dict[str, Any], chosen: Bool[Tensor, "N"]) -> None:
    """Replace each chosen Gaussian by two, side by side along its longest axis; colours and Adam's moments are its own.

    Args:
        params: the Gaussians, by splatfacto's names; changed in place, as ``optimizers`` and the strategy's ``state``.
    """
    at, rest = chosen.nonzero().squeeze(1), (~chosen).nonzero().squeeze(1)
    log_scales = params["scales"][at]
    longest = log_scales.argmax(-1, keepdim=True)
    axes = normalized_quat_to_rotmat(normalize(params["quats"][at], dim=-1))
    axis = axes.gather(2, longest[:, None].expand(-1, 3, 1)).squeeze(2)
    offset = axis * log_scales.gather(1, longest).exp() * math.sqrt(0.5)
    halves = {
        "means": torch.cat([params["means"][at] - offset, params["means"][at] + offset]),
        "scales": log_scales.scatter_add(1, longest, log_scales.new_full(longest.shape, -math.log(2) / 2)).repeat(2, 1),
        "opacities": torch.logit(halved_opacity(params["opacities"][at].sigmoid()), eps=1e-6).repeat(2, 1),
    }

    def both(values: Tensor) -> Tensor:
        return torch.cat([values[rest], values[at], values[at]])

    def parameter(name: str, values: Tensor) -> Tensor:
        new = torch.cat([values[rest], halves[name]]) if name in halves else both(values)
        return torch.nn.Parameter(new)

    _update_param_with_optimizer(parameter, lambda _, moments: both(moments), params, optimizers)
    for name, values in state.items():
        if isinstance(values, Tensor):
            state[name] = both(values)
