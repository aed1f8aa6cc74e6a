"""What a refiner may look at beside a view itself: photographs, and generated views that the model agrees with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from closeup_ns.errors import PlanningError
from closeup_ns.progress import track
from closeup_ns.refine.protocol import GuideImage
from closeup_ns.rounds.injection import with_real_colors
from closeup_ns.rounds.run import Run
from closeup_ns.rounds.store.rounds import RoundStore
from closeup_ns.views.psnr import psnr
from closeup_ns.views.reliability import Observation
from closeup_ns.views.view import View

CONSISTENT_PSNR = 20.0
"""A generated view that the model, trained on it, shows at less than this many dB contradicts the others (#26)."""
OBSERVED_BYTES = 4 * 2**30
"""Most memory for photographs and native views with their depth."""
PIXEL_BYTES = 16
"""Three colours and the depth, in float32."""


@torch.no_grad()
def observations(
    run: Run, wanted: Sequence[View], target: Float[Tensor, "3"], anchors: Sequence[str] = ()
) -> dict[str, Observation]:
    """The photographs and the native views, by their names in a plan, at the model's own exposure, with its z-depth.

    Where `OBSERVED_BYTES` does not hold all, ``anchors`` stay, then those that look at ``target`` from nearly the
    direction of a view of ``wanted``. Pixels that show no scene (masked, transparent) have no depth: they back nothing.
    """
    data = run.photographs
    known = [(f"train/{name}", view, None) for name, view in zip(data.photograph_names(), data.train_views())]
    known += [(native.name, data.native_view(native), native) for native in data.native]
    towards = _directions([view for _, view, _ in known], target) @ _directions(wanted, target).T
    nearest = (-towards.amax(1)).argsort(stable=True).tolist()
    order = sorted(nearest, key=lambda index: known[index][0] not in anchors)
    sizes = torch.tensor([known[index][1].width * known[index][1].height for index in order]) * PIXEL_BYTES
    kept = sorted(order[: int((sizes.cumsum(0) <= OBSERVED_BYTES).sum())])
    if len(kept) < len(known):
        CONSOLE.print(
            f"Depth of {len(kept)} of {len(known)} photographs and native views, those that look from where the "
            f"close-ups do: no more fit into {OBSERVED_BYTES / 2**30:.0f} GiB."
        )
    result = {}
    for index in track(kept, "depth of photographs"):
        name, view, native = known[index]
        if native is None:
            result[name] = _observation(run, view, data.photograph(index), data.shown(index), index)
        else:
            image, _ = data.native_image(native)
            result[name] = _observation(run, view, image, data.native_shown(native), native.photograph)
    return result


def _directions(views: Sequence[View], target: Float[Tensor, "3"]) -> Float[Tensor, "n 3"]:
    """Unit vectors from ``target`` to each camera."""
    return F.normalize(torch.stack([view.position for view in views]).to(target).double() - target.double(), dim=-1)


def _observation(run: Run, view: View, image: Tensor, shown: Tensor | None, photograph: int) -> Observation:
    """An image [H, W, 3] of photograph number ``photograph``, or of a part of it; depth 0 where it is not ``shown``."""
    depth = run.render(view).depth
    depth = depth if shown is None else torch.where(shown, depth, 0.0)
    return Observation(view, run.model.unexposed(image, photograph).permute(2, 0, 1).contiguous(), depth)


@torch.no_grad()
def consistent_views(run: Run, store: RoundStore, number: int) -> dict[str, Observation]:
    """Refined views of rounds before ``number``, by their names in a plan, that a generator may build on.

    Their round was kept, the gate accepted them, and the model that was trained on them shows what they show
    (papers.md 6.3 #17 and #26). Their colours are refined, not photographs': they say where geometry is known, and are
    references, but never real.
    """
    found: dict[str, Observation] = {}
    for earlier in range(1, number):
        verdict = store.load_verdict(earlier)
        if verdict is None or not verdict.accepted:
            continue
        for name in store.views(earlier):
            if store.header(earlier, name).decision.verdict != "accepted":
                continue
            stored = store.load_view(earlier, name)
            view = stored.view.to(run.device)
            rendered, image = run.render(view), stored.image.to(run.device)
            if psnr(torch.nan_to_num(rendered.color), image) > CONSISTENT_PSNR:
                found[f"round{earlier}/{name}"] = Observation(view, image.permute(2, 0, 1), rendered.depth)
    return found


def anchor_image(
    name: str, photographs: Mapping[str, Observation], earlier: RoundStore, device: torch.device | str
) -> GuideImage:
    """The picture of a plan's anchor: a photograph, a native view, or a view that an earlier round refined.

    Args:
        name: as in the plan: "train/FILE", "nativeN/VIEW" or "roundN/VIEW".
        photographs: `observations`.
        earlier: the store that holds the earlier rounds.

    Raises:
        PlanningError: it is not there.
    """
    if name in photographs:
        found = photographs[name]
        return GuideImage(name, found.view, found.color.permute(1, 2, 0), is_real=True)
    kind, _, rest = name.partition("/")
    number = next((index for index in earlier.rounds() if kind == f"round{index}"), None)
    if number is None or rest not in earlier.views(number):
        raise PlanningError(
            f"the plan's anchor {name} is neither one of the {len(photographs)} photographs nor a refined view in "
            f"{earlier.root}: the plan was made for another capture, or rounds were removed since. Restore them, or "
            "delete the round's folder to plan it again"
        )
    return stored_guide(earlier, number, rest, name, device)


def stored_guide(store: RoundStore, number: int, name: str, called: str, device: torch.device | str) -> GuideImage:
    """A refined view as a reference: as it was refined, or, where the gate did not accept that, its render with the
    reliable pixels' real colours.
    """
    stored = store.load_view(number, name)
    image = stored.image if stored.decision.accepted else with_real_colors(stored)
    return GuideImage(called, stored.view.to(device), image.to(device), is_real=False)
