"""What a refiner may look at beside a view itself: photographs, and generated views that are believed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from closeup_ns.errors import PlanningError
from closeup_ns.planning.plan import KnownView
from closeup_ns.progress import track
from closeup_ns.refine.protocol import GuideImage, Refiner
from closeup_ns.rounds.injection import with_real_colors
from closeup_ns.rounds.run import Run
from closeup_ns.rounds.store.rounds import RoundStore
from closeup_ns.rounds.views import NativeView
from closeup_ns.views.psnr import psnr
from closeup_ns.views.reliability import Observation

LEARNT_PSNR = 20.0
"""A generated view that the model, trained on it, shows at less than this many dB contradicts the others (#26)."""


@torch.no_grad()
def observations(run: Run) -> dict[str, Observation]:
    """The photographs, by their names in a plan, at the model's own exposure and with its z-depth.

    Pixels that show no scene (masked, transparent) have no depth: they back nothing.
    """
    data, result = run.photographs, {}
    views = list(zip(data.photograph_names(), data.train_views(), strict=True))
    for index, (name, view) in enumerate(track(views, "depth of photographs")):
        photograph = run.model.unexposed(data.photograph(index), index)
        depth, shown = run.render(view).depth, data.shown(index)
        depth = depth if shown is None else torch.where(shown, depth, 0.0)
        result[f"train/{name}"] = Observation(view, photograph.permute(2, 0, 1).contiguous(), depth)
    return result


def known_views(run: Run, store: RoundStore, number: int, refiner: Refiner) -> list[KnownView]:
    """What planning round ``number`` may build on: photographs, native views, and earlier rounds' views.

    A generator's references may only be views that are believed.
    """
    data = run.photographs
    known = [KnownView(f"train/{name}", view, True) for name, view in zip(data.photograph_names(), data.train_views())]
    known += [KnownView(view.name, data.native_view(view), True) for view in data.native]
    earlier = list(data.injected)
    if refiner.generates and earlier:
        believed = believed_views(run, store, number)
        earlier = [view for view in earlier if view.name in believed]
    return known + [KnownView(view.name, view.view, False) for view in earlier]


@torch.no_grad()
def native_observations(run: Run, views: Sequence[NativeView]) -> dict[str, Observation]:
    """Native ``views`` as `observations`: the finest that is photographed of what they show."""
    data, result = run.photographs, {}
    for native in views:
        image, counted = data.native_image(native)
        view, image = data.native_view(native), run.model.unexposed(image, native.photograph)
        depth = run.render(view).depth
        depth = depth if counted is None else torch.where(counted, depth, 0.0)
        result[native.name] = Observation(view, image.permute(2, 0, 1).contiguous(), depth)
    return result


@torch.no_grad()
def believed_views(run: Run, store: RoundStore, number: int) -> dict[str, Observation]:
    """Refined views of rounds before ``number``, by their names in a plan, that a generator may build on.

    Their round was kept, the gate accepted them, and the model that was trained on them shows what they show
    (papers.md 6.3 #17 and #26). Their colours are refined, not photographs': they say where geometry is known, and are
    references, but never real.
    """
    found: dict[str, Observation] = {}
    for earlier in (index for index in store.rounds() if index < number):
        if not (store.load_verdict(earlier) or {}).get("accepted"):
            continue
        for name in store.views(earlier):
            if store.header(earlier, name)["decision"]["verdict"] != "accepted":
                continue
            stored = store.load_view(earlier, name)
            view = stored.view.to(run.device)
            rendered, image = run.render(view), stored.image.to(run.device)
            if psnr(torch.nan_to_num(rendered.color), image) > LEARNT_PSNR:
                found[f"round{earlier}/{name}"] = Observation(view, image.permute(2, 0, 1), rendered.depth)
    return found


def anchor_images(
    names: Sequence[str], photographs: Mapping[str, Observation], earlier: RoundStore, device: torch.device | str
) -> list[GuideImage]:
    """The pictures of a plan's anchors: photographs, native views, and views that earlier rounds refined.

    Args:
        names: as in the plan: "train/FILE", "nativeN/VIEW" or "roundN/VIEW".
        photographs: the capture's and their native views, by their names in a plan.
        earlier: the store that holds the earlier rounds.

    Raises:
        PlanningError: one of them is not there.
    """
    return [_anchor_image(name, photographs, earlier, device) for name in names]


def _anchor_image(
    name: str, photographs: Mapping[str, Observation], earlier: RoundStore, device: torch.device | str
) -> GuideImage:
    kind, _, rest = name.partition("/")
    if name in photographs:
        found = photographs[name]
        return GuideImage(name, found.view, found.color.permute(1, 2, 0), is_real=True)
    number = int(kind.removeprefix("round")) if kind.removeprefix("round").isdecimal() else 0
    if number < 1 or rest not in earlier.views(number):
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
