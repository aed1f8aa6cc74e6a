"""A refiner whose views are sharpened afterwards (paper, Table 3, "Enhance"), behind the refiners' own interface."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from closeup_ns.errors import RefinerError, RefinerOutOfMemory
from closeup_ns.refine.color import match_wavelet
from closeup_ns.refine.enhance.enhancer import Enhancer
from closeup_ns.refine.guides import guide_distances
from closeup_ns.refine.progress import say
from closeup_ns.refine.refiner import GuideImage, RefinedView, Refiner, RefineRequest
from closeup_ns.refine.results import trust
from closeup_ns.refine.seeds import derived_seed


class EnhancedRefiner:
    """Runs a refiner, then an enhancer on each view that did not fail, then takes the refined view's colours back.

    Enhanced pixels are generated ones, also where the refiner had set a photograph's colour: the detail that is laid
    over it is not the photograph's. The sparse reliable pixels have a term of their own in the loss and stay. An
    enhancer that cannot work never costs a view: the refined one is kept, and ``enhance_failure`` says why.
    """

    generates = True

    def __init__(self, refiner: Refiner, enhancer: Enhancer) -> None:
        self.refiner = refiner
        self.enhancer = enhancer
        self.name = f"{refiner.name}+{enhancer.name}"
        # The passes are the refiner's: the enhancer cuts what it is given into its own. Where the refiner takes each
        # view alone, the enhancer decides.
        self.frames = refiner.frames if refiner.frames > 1 else enhancer.frames
        self._most = enhancer.frames
        self._one_at_a_time = False

    def refine(self, request: RefineRequest) -> list[RefinedView]:
        """The refined views, enhanced where that was possible. Notes of the enhancer begin with ``enhance``.

        Raises:
            RefinerError: the refiner cannot work.
        """
        refined = self._refined(request)
        names = list(request.names) or [f"view {index}" for index in range(len(refined))]
        waiting = [index for index, view in enumerate(refined) if view.failure is None]
        guides = [*request.anchors, *request.neighbours]
        results = list(refined)
        while waiting:
            shown = self._shown(request, waiting, guides)
            chunk = waiting[: max(1, self._most - len(shown))]
            made = self._attempt([refined[index].image for index in chunk], shown, request.seed, names, chunk)
            if made is None:
                continue  # with less
            if isinstance(made, RefinerError):
                for index in waiting:
                    results[index] = self._kept(refined[index], str(made))
                break
            for index, picture in zip(chunk, made, strict=True):
                results[index] = self._merged(request, index, refined[index], picture)
                if self.enhancer.guided and "enhance_failure" not in results[index].notes:
                    # What is finished keeps what follows consistent with it.
                    guides.append(GuideImage(names[index], request.views[index], results[index].image, False))
            waiting = waiting[len(chunk) :]
        self._say_kept(results)
        return results

    def close(self) -> None:
        """Frees both."""
        self.refiner.close()
        self.enhancer.close()
        self._most, self._one_at_a_time = self.enhancer.frames, False

    def _refined(self, request: RefineRequest) -> list[RefinedView]:
        """The refiner's views; without the enhancer in memory where both did not fit."""
        if self._one_at_a_time:
            self.enhancer.close()
        try:
            refined = self.refiner.refine(request)
        except RefinerOutOfMemory:
            if self._one_at_a_time:
                raise
            refined = None  # tried again outside of the block: the error holds on to what fills the memory
        if refined is None:
            self._make_room()
            self.enhancer.close()
            refined = self.refiner.refine(request)
        if self._one_at_a_time:
            self.refiner.close()
        return refined

    def _make_room(self) -> None:
        """From now on only one of the two is in memory; each pass loads both anew."""
        self._one_at_a_time = True
        say(f"{self.name}: both do not fit into memory; from now on each is loaded when it is needed")

    def _shown(self, request: RefineRequest, waiting: Sequence[int], guides: Sequence[GuideImage]) -> list[GuideImage]:
        """References for the next pass, nearest first: at most a third of it, as in `closeup_ns.refine.chunking`."""
        if not self.enhancer.guided or not guides:
            return []
        room = max(1, self._most // 3)
        here = waiting[: max(1, self._most - room)]
        views = [request.views[index] for index in here]
        distances = guide_distances(views, [request.renders[index] for index in here], guides)
        return [guides[int(index)] for index in distances.amin(0).argsort(stable=True)[:room]]

    def _attempt(
        self, images: list[Tensor], shown: list[GuideImage], seed: int, names: list[str], chunk: list[int]
    ) -> list[Tensor | str] | RefinerError | None:
        """What the enhancer makes of a pass; None where the next attempt is to have fewer pictures.

        Nothing of an error for want of memory is kept: its traceback would hold on to what fills it.
        """
        chosen = [names[index] for index in chunk]
        try:
            return self.enhancer.enhance(images, shown, derived_seed(seed, "enhance", *chosen))
        except RefinerOutOfMemory as error:
            why = str(error)
        except RefinerError as error:
            return error.with_traceback(None)
        if not self._one_at_a_time:
            self._make_room()
            self.refiner.close()
            return None
        least = 2 if self.enhancer.guided else 1
        if len(images) + len(shown) > least:
            self._most = max(least, (len(images) + len(shown)) // 2)
            say(f"{self.enhancer.name}: out of memory; going on with at most {self._most} pictures in one pass")
            return None
        return [why for _ in images]

    def _merged(self, request: RefineRequest, index: int, view: RefinedView, picture: Tensor | str) -> RefinedView:
        """The enhanced view with the refined one's colours; or the refined one, with the reason."""
        if isinstance(picture, str):
            return self._kept(view, picture)
        if picture.shape != view.image.shape or not bool(picture.isfinite().all()):
            return self._kept(view, f"{self.enhancer.name} gave a picture of another size, or NaN or infinite pixels")
        before = view.image.permute(2, 0, 1)
        after = match_wavelet(picture.to(view.image).permute(2, 0, 1), before).clamp(0, 1)
        # A refiner that invents nothing says 0 where it knows nothing beyond the render; now there is something.
        known = trust(request.renders[index], request.masks[index].dense)
        return replace(
            view,
            image=after.permute(1, 2, 0).contiguous(),
            real=torch.zeros_like(view.real),
            weight=view.weight if self.refiner.generates else known,
            notes={
                **view.notes,
                "enhance": self.enhancer.name,
                "enhance_change": float((after - before).abs().mean()),
            },
        )

    def _kept(self, view: RefinedView, why: str) -> RefinedView:
        """The refined view as it is: no more generated than its refiner made it."""
        return replace(view, notes={**view.notes, "enhance_failure": why}, generated=self.refiner.generates)

    def _say_kept(self, views: Sequence[RefinedView]) -> None:
        """One line where views are not enhanced: nothing is left out silently."""
        faults = [str(view.notes["enhance_failure"]) for view in views if "enhance_failure" in view.notes]
        if faults:
            why = " ".join(faults[0].split())
            say(f"{self.enhancer.name}: {len(faults)} of {len(views)} views stay as they were refined ({why})")
