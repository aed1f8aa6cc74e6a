"""Densification: gsplat's default strategy with a ceiling, and with steps that enter no statistics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from gsplat.strategy import DefaultStrategy

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
