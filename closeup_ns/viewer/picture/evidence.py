"""What the overlays are computed from: photographs and generated views, small, with the depth of the current model."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from closeup_ns.rounds.run import Run
from closeup_ns.rounds.store.rounds import RoundStore
from closeup_ns.viewer.picture.overlays import GeneratedView
from closeup_ns.views.reliability import Observation
from closeup_ns.views.rendered import Renderer
from closeup_ns.views.view import View


@torch.no_grad()
def gather_evidence(
    run: Run, store: RoundStore, render: Renderer, long_side: int, limit: int, say: Callable[[str], None]
) -> tuple[list[Observation], list[GeneratedView]]:
    """Up to ``limit`` photographs, evenly spaced, and all accepted generated views, small and with rendered depth.

    ``render`` takes the viewer's lock for one small image at a time, so that nobody waits for longer than a frame.
    """
    data, model = run.photographs, run.model
    count = len(data.photograph_names())
    chosen = torch.linspace(0, count - 1, min(limit, count)).round().long().unique().tolist()
    photographs = []
    for done, index in enumerate(chosen):
        say(f"looking at photograph {done + 1} of {len(chosen)}")
        photograph = model.unexposed(data.photograph(index), index)
        view = data.train_view(index).resized(long_side)
        depth, shown = render(view).depth, data.shown(index)
        if shown is not None:
            depth = torch.where(shrunk(shown.float()[..., None], view)[..., 0] > 0.999, depth, 0.0)
        photographs.append(Observation(view, shrunk(photograph, view).permute(2, 0, 1), depth))
    generated = []
    for number in store.rounds():
        verdict = store.load_verdict(number)
        if verdict is None or not verdict.accepted:
            continue
        for name in store.views(number):
            if store.header(number, name).decision.verdict == "rejected":
                continue
            say(f"looking at round {number}, {name}")
            stored = store.load_view(number, name)
            view = stored.view.to(run.device).resized(long_side)
            real = shrunk(stored.real.float()[..., None].to(run.device), view)[..., 0] > 0.5
            generated.append(GeneratedView(view, render(view).depth, real))
    return photographs, generated


def shrunk(image: Float[Tensor, "H W C"], view: View) -> Float[Tensor, "h w C"]:
    """``image`` averaged down to the size of ``view``."""
    return F.interpolate(image.permute(2, 0, 1)[None], (view.height, view.width), mode="area")[0].permute(1, 2, 0)
