"""The paper's refiner: a multi-view diffusion model with a mask of what photographs show (paper, 4.2 and 4.3.3).

The network draws all pixels anew, also where the render was right, so nothing in its views is called real. The mask,
the colour match and the gate hold them to the photographs.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from closeup_ns.errors import RefinerError, RefinerOutOfMemory
from closeup_ns.progress import bar, say
from closeup_ns.refine.chunking import covering
from closeup_ns.refine.imaging.sizes import Tile
from closeup_ns.refine.libraries import out_of_memory, precision_name, torch_dtype
from closeup_ns.refine.options import See3DRefinerConfig
from closeup_ns.refine.protocol import GuideImage, RefinedView, RefineRequest
from closeup_ns.refine.results import failed, generated
from closeup_ns.refine.see3d.joint import JointModel, Target, refine_jointly
from closeup_ns.refine.see3d.references import shown_share, surface_points
from closeup_ns.refine.see3d.schedule import TRAIN_STEPS
from closeup_ns.refine.see3d.stage import BASE, SR, Stage
from closeup_ns.refine.see3d.weights import UNetName, faults, require_packages, weights_folder

_SMALLER = "try cpu_offload, or dtype fp16"
Load = Callable[[See3DRefinerConfig, UNetName, torch.device], JointModel]


def load_network(config: See3DRefinerConfig, unet: UNetName, device: torch.device) -> JointModel:
    """See3D's pipeline with one of its networks, on ``device`` or brought there tower by tower.

    Where ``single`` is not there, ``sparse`` takes its place.

    Raises:
        RefinerError: packages, files or tensors are missing, broken or of another model.
    """
    require_packages()
    from closeup_ns.refine.see3d.loading import load_pipeline

    folder = weights_folder(config.weights)
    if unet == "single" and faults(folder, ["single"]):
        unet = "sparse"
    offload = config.cpu_offload and device.type != "cpu"
    dtype = torch_dtype(config.dtype, device)
    pipeline = load_pipeline(folder, unet, dtype, torch.device("cpu") if offload else device)
    if offload:
        pipeline.enable_model_cpu_offload(device=device)
    return pipeline


class See3DRefiner:
    """Refines views in joint passes of at most ``frames`` pictures; loads the network at the first use.

    ``stage`` says which of See3D's two stages it is: the refiner, or what sharpens refined views.

    Raises:
        RefinerError: options that contradict each other.
    """

    generates = True

    def __init__(
        self,
        config: See3DRefinerConfig,
        device: torch.device,
        stage: Stage = BASE,
        load: Load = load_network,
    ) -> None:
        if config.frames < 2:
            raise RefinerError(f"See3D: frames is {config.frames}, but a pass needs 2, a reference and a view")
        if config.steps is not None and not 1 <= config.steps < TRAIN_STEPS:
            raise RefinerError(f"See3D: steps is {config.steps}; choose 1 to {TRAIN_STEPS - 1}")
        self.config = config
        self.device = torch.device(device)
        self.stage = stage
        self.name = stage.name
        self.frames = min(config.frames, stage.frames)
        self._load = load
        self._model: JointModel | None = None
        self._network: UNetName | None = None
        self._forget_limits()

    def refine(self, request: RefineRequest) -> list[RefinedView]:
        """One generated view per requested one, with nothing called real.

        The weight is that of `closeup_ns.refine.results.trust`; ``FineTuneConfig.generated_weight`` says how much less
        generated pixels count.

        A view for which the network says NaN, or for which alone the memory does not suffice, has a ``failure``.

        Raises:
            RefinerError: there is no reference, or the network cannot be loaded.
            RefinerOutOfMemory: the network itself does not fit.
        """
        guides = [*request.anchors, *request.neighbours]
        if not guides:
            raise RefinerError(
                "See3D needs at least one reference and was given none: the round has no anchors. Choose the reliable "
                "refiner, or a target that a photograph shows"
            )
        base: UNetName = "single" if len(guides) == 1 else "sparse"
        model = self._loaded("SR" if self.stage.name == SR.name else base)
        parts = zip(request.names, request.views, request.renders, request.masks, strict=True)
        targets = [Target.of(name, view, render, mask.dense) for name, view, render, mask in parts]
        results: dict[int, RefinedView] = {}
        for size in dict.fromkeys(target.image.shape for target in targets):
            alike = [index for index, target in enumerate(targets) if target.image.shape == size]
            found = self._refine_alike(model, [targets[index] for index in alike], guides, request.seed)
            results.update(zip(alike, found, strict=True))
        return [results[index] for index in range(len(targets))]

    def close(self) -> None:
        """Frees the network. The next ``refine`` loads it again."""
        if self._model is None:
            return
        self._model = self._network = None
        self._forget_limits()
        self._free()

    def _forget_limits(self) -> None:
        """Try full passes. Limits found by running out of memory hold until the network is loaded anew."""
        self._most_targets = self.frames
        self._most_references = self.frames - 1

    def _loaded(self, network: UNetName) -> JointModel:
        """The model; one network at a time is in memory."""
        if self._model is not None and self._network == network:
            return self._model
        self.close()
        try:
            self._model = self._load(self.config, network, self.device)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            raise RefinerOutOfMemory(
                f"See3D's {network} network does not fit into the memory of {self.device}: {_SMALLER}"
            ) from None
        self._network = network
        return self._model

    def _refine_alike(
        self, model: JointModel, targets: list[Target], guides: list[GuideImage], seed: int
    ) -> list[RefinedView]:
        """Views of one size, in as many passes as frames and memory ask for."""
        waiting, results = list(targets), []
        with bar(self.name) as advance:
            while waiting:
                shown = self._references(guides, targets)
                chosen = waiting[: _even_share(len(waiting), min(self._most_targets, self.frames - len(shown)))]
                made = self._attempt(model, chosen, shown, seed, advance)
                if made is not None:
                    images, tiles = made
                    frames = len(chosen) + len(shown)
                    results += [self._view(target, image, frames, tiles) for target, image in zip(chosen, images)]
                else:
                    self._free()
                    if self._with_less(len(chosen), len(shown)):
                        continue
                    why = f"one view with one reference does not fit into the memory of {self.device}: {_SMALLER}"
                    results.append(failed(chosen[0].render, why))
                waiting = waiting[len(chosen) :]
        return results

    def _references(self, guides: list[GuideImage], targets: Sequence[Target]) -> list[GuideImage]:
        """All references where there is room for them; else those that together show most of the targets.

        They keep at least a third of the pass, as in `closeup_ns.refine.chunking`.
        """
        room = max(1, self.frames // 3, self.frames - len(targets))
        room = min(room, self._most_references)
        if len(guides) <= room:
            return guides
        points = [
            surface_points(target.view, target.render, Tile(0, 0, target.view.height, target.view.width))
            for target in targets
        ]
        shares = [[shown_share(guide.view, found) for guide in guides] for found in points]
        return [guides[index] for index in sorted(covering(torch.tensor(shares), room, fill=True))]

    def _with_less(self, targets: int, references: int) -> bool:
        """After a pass that did not fit: allow half of the views, then half of the references, and print a line.

        Returns False where one view with one reference did not fit.
        """
        if targets == references == 1:
            return False
        if targets > 1:
            self._most_targets = (targets + 1) // 2
            less = f"{self._most_targets} of the views"
        else:
            self._most_references = references // 2
            less = f"{self._most_references} of the references"
        say(
            f"See3D: {targets + references} pictures in one pass do not fit into the memory of {self.device}; "
            f"going on with at most {less}"
        )
        return True

    def _attempt(
        self,
        model: JointModel,
        targets: Sequence[Target],
        guides: Sequence[GuideImage],
        seed: int,
        advance: Callable[[int, int], None],
    ) -> tuple[list[Float[Tensor, "3 H W"] | None], int] | None:
        """One joint pass, as `refine_jointly` returns it; None where the memory does not suffice.

        Nothing of the error is kept: its traceback would hold on to the tensors that fill the memory.
        """
        try:
            return refine_jointly(model, targets, guides, self.stage, self.config, seed, advance)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            return None

    def _view(self, target: Target, image: Tensor | None, frames: int, tiles: int) -> RefinedView:
        """What became of a view in a pass of ``frames`` pictures, with notes for the report."""
        known = float(target.known.float().mean())
        notes: dict[str, float | str] = {
            "tiles": tiles,
            "frames": frames,
            "network": self._network or "",
            "dtype": precision_name(self.config.dtype, self.device),
            "known_share": known,
        }
        if known == 0.0:
            notes["mask"] = "nothing known"
        if image is None:
            why = "the network returned NaN or infinite pixels: try dtype bf16 or fp32"
            return failed(target.render, why, notes)
        return generated(target.render, target.known, image.permute(1, 2, 0), notes)

    def _free(self) -> None:
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def _even_share(count: int, room: int) -> int:
    """How many of ``count`` go next, so that passes of at most ``room`` are of about one size."""
    return math.ceil(count / math.ceil(count / max(1, room)))
