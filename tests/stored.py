"""Stored views with made-up content, for the tests of the store and the contact sheet."""

from __future__ import annotations

import torch

from closeup_ns.planning.plan import KnownView
from closeup_ns.refine.judging.gate import GateDecision, Verdict
from closeup_ns.rounds.store.layout import StoredPlan
from closeup_ns.rounds.store.rounds import run_identity
from closeup_ns.rounds.store.view import PassRecord, StoredView
from closeup_ns.views.reliability import ReliablePixels
from closeup_ns.views.view import View


def a_view(seed: int = 0, width: int = 20, height: int = 14, verdict: Verdict = "accepted") -> StoredView:
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator)

    rotation, _ = torch.linalg.qr(torch.randn(3, 3, generator=generator))
    c2w = torch.eye(4)
    c2w[:3, :3] = rotation * torch.linalg.det(rotation).sign()  # a rotation, and no mirror
    c2w[:3, 3] = random(3)
    K = torch.tensor([[21.3, 0, 10.1], [0, 20.7, 6.9], [0, 0, 1]])
    sparse = random(height, width) < 0.3
    reliable = ReliablePixels(
        dense=random(height, width) < 0.7,
        sparse=sparse,
        color=random(3, height, width) * sparse,
        blended=random(3, height, width),
        support=(random(height, width) * 9).int(),
        footprint=torch.where(sparse, 1 + 3 * random(height, width), 1.0),
    )
    return StoredView(
        view=View(K, c2w, width, height),
        image=random(height, width, 3),
        render=random(height, width, 3),
        reliable=reliable,
        real=random(height, width) < 0.5,
        weight=random(height, width),
        decision=GateDecision(verdict, "because", 20.5, 21.25, 0.03, 0.7, 0.3),
        seconds=0.1 + seed,
        notes={"footprint_px": 3.0, "model": "none"},
        record=PassRecord("see3d", True, 2, 7, ("train/frame_00012.png", "t0_update_05"), 1234.5, "GPU"),
    )


PLAN = StoredPlan([], [KnownView("a", a_view().view, True)])
IDENTITY = run_identity(["a.png", "b.png"], [0.5, 1.0, -2.0], seed=42)
