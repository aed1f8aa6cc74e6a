"""A refiner whose views are sharpened afterwards (paper, Table 3, "Enhance"), behind the refiners' own interface."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from closeup_ns.errors import RefinerError
from closeup_ns.progress import say
from closeup_ns.refine.imaging.color import match_wavelet
from closeup_ns.refine.protocol import RefinedView, Refiner, RefineRequest
from closeup_ns.refine.results import failed, trust


class EnhancedRefiner:
    """Runs a refiner, then an enhancer whose renders are the refined views, then takes their colours back.

    The enhancer is a refiner itself. Enhanced pixels are generated ones, also where the refiner had set a photograph's
    colour: the detail that is laid over it is not the photograph's. An enhancer that cannot work never costs a view:
    the refined one is kept, and ``enhance_failure`` says why. Only one of the two is in memory at a time.
    """

    generates = True

    def __init__(self, refiner: Refiner, enhancer: Refiner) -> None:
        self.refiner = refiner
        self.enhancer = enhancer
        self.name = f"{refiner.name}+{enhancer.name}"
        # The passes are the refiner's; where it takes each view alone, the enhancer decides.
        self.frames = refiner.frames if refiner.frames > 1 else enhancer.frames

    def refine(self, request: RefineRequest) -> list[RefinedView]:
        """The refined views, enhanced where that was possible. Notes of the enhancer begin with ``enhance``.

        Raises:
            RefinerError: the refiner cannot work.
        """
        self.enhancer.close()
        results = self.refiner.refine(request)
        self.refiner.close()
        chosen = [index for index, view in enumerate(results) if view.failure is None]
        if not chosen:
            return results
        second = _second_request(request, results, chosen)
        try:
            sharpened = self.enhancer.refine(second)
        except RefinerError as error:
            sharpened = [failed(render, str(error)) for render in second.renders]
        for index, view in zip(chosen, sharpened, strict=True):
            results[index] = self._merged(request, index, results[index], view)
        self._say_kept(results)
        return results

    def close(self) -> None:
        """Frees both."""
        self.refiner.close()
        self.enhancer.close()

    def _merged(self, request: RefineRequest, index: int, view: RefinedView, sharpened: RefinedView) -> RefinedView:
        """The enhanced view with the refined one's colours; or the refined one, with the reason."""
        if sharpened.failure is not None:
            # No more generated than its refiner made it.
            notes = {**view.notes, "enhance_failure": sharpened.failure}
            return replace(view, notes=notes, generated=self.refiner.generates)
        before = _planes(view.image)
        after = match_wavelet(_planes(sharpened.image.to(view.image)), before).clamp(0, 1)
        # A refiner that invents nothing has weight 0 where it only shows the render; the enhancer added detail there.
        weight = trust(request.renders[index], request.masks[index].dense)
        return replace(
            view,
            image=after.permute(1, 2, 0).contiguous(),
            real=torch.zeros_like(view.real),
            weight=view.weight if self.refiner.generates else weight,
            notes={
                **view.notes,
                "enhance": self.enhancer.name,
                "enhance_change": float((after - before).abs().mean()),
            },
        )

    def _say_kept(self, views: Sequence[RefinedView]) -> None:
        """One line where views are not enhanced: nothing is left out silently."""
        faults = [str(view.notes["enhance_failure"]) for view in views if "enhance_failure" in view.notes]
        if faults:
            why = " ".join(faults[0].split())
            say(f"{self.enhancer.name}: {len(faults)} of {len(views)} views stay as they were refined ({why})")


def _second_request(request: RefineRequest, refined: Sequence[RefinedView], chosen: Sequence[int]) -> RefineRequest:
    """The views at the indices ``chosen`` with their refined images in place of the renders."""
    return replace(
        request,
        views=[request.views[index] for index in chosen],
        renders=[replace(request.renders[index], color=refined[index].image) for index in chosen],
        masks=[request.masks[index] for index in chosen],
        names=[request.names[index] for index in chosen],
    )


def _planes(image: Tensor) -> Tensor:
    return image.permute(2, 0, 1)
