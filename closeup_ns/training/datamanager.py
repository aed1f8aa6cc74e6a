"""Real photographs, some of which can be held out for a while, and injected views beside them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.configs.dataparser_configs import AnnotatedDataParserUnion
from nerfstudio.data.datamanagers.full_images_datamanager import FullImageDatamanager, FullImageDatamanagerConfig
from torch import Tensor

from closeup_ns.data.dataparser import CloseupDataParserConfig
from closeup_ns.data.dataset import CloseupDataset
from closeup_ns.training.cameras import cameras_of, view_of
from closeup_ns.training.losses import InjectedTarget
from closeup_ns.views.view import View


@dataclass
class CloseupDatamanagerConfig(FullImageDatamanagerConfig):
    """Full images, by default from whatever kind of capture the folder holds."""

    _target: type = field(default_factory=lambda: CloseupDatamanager)
    dataparser: AnnotatedDataParserUnion = field(default_factory=CloseupDataParserConfig)
    """How the capture is read."""
    cache_images: Literal["cpu", "gpu"] = "gpu"
    """Where images are kept: "gpu" means the training device; "cpu" pins memory and needs a GPU to exist."""
    cache_images_type: Literal["uint8", "float32"] = "uint8"
    """uint8 saves memory."""


@dataclass(frozen=True, eq=False)
class InjectedView:
    """A rendered and refined view that the model trains on beside the photographs."""

    name: str
    round_index: int
    view: View
    target: InjectedTarget
    densifies: bool
    """Whether its gradients count for densification (4.3.4)."""


class CloseupDatamanager(FullImageDatamanager[CloseupDataset]):
    """Photographs as upstream serves them; injected views live beside the data set and not in it."""

    config: CloseupDatamanagerConfig
    held_out: frozenset[int] = frozenset()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.injected: list[InjectedView] = []
        self.current_round = 0
        self.injected_probability = 0.0
        self.current_share = 0.7
        self.injection_generator = torch.Generator().manual_seed(self.config.train_cameras_sampling_seed)

    # ---- photographs

    def sample_train_cameras(self) -> list[int]:
        return [index for index in super().sample_train_cameras() if index not in self.held_out]

    def hold_out(self, indices: Iterable[int]) -> None:
        """Keep these photographs out of training until told otherwise; an empty set releases all."""
        held_out = frozenset(indices)
        if len(held_out) >= len(self.train_dataset):
            raise ValueError(f"cannot hold out {len(held_out)} of {len(self.train_dataset)} photographs: none is left")
        self.held_out = held_out
        self.train_unseen_cameras = self.sample_train_cameras()

    def photograph(self, index: int) -> Float[Tensor, "H W 3"]:
        """Training photograph ``index`` as it is trained on (undistorted), in [0, 1]."""
        return _unit_range(self.cached_train[index]["image"]).to(self.device)

    def eval_photographs(self) -> list[tuple[View, Float[Tensor, "H W 3"]]]:
        """The evaluation split, for reports; nothing that trains or decides may call this."""
        return [
            (view_of(camera, 0).to(self.device), _unit_range(batch["image"]).to(self.device))
            for camera, batch in self.fixed_indices_eval_dataloader
        ]

    def photograph_names(self) -> list[str]:
        """File names of the training photographs, in index order."""
        return [path.name for path in self.train_dataset.image_filenames]

    def train_view(self, index: int) -> View:
        """View of training photograph ``index``, after undistortion."""
        _ = self.cached_train  # undistortion rewrites the intrinsics
        return view_of(self.train_dataset.cameras, index).to(self.device)

    def train_views(self) -> list[View]:
        """Views of all training photographs, after undistortion."""
        return [self.train_view(index) for index in range(len(self.train_dataset))]

    # ---- injected views

    def next_train(self, step: int) -> tuple[Cameras, dict[str, Any]]:
        """The next photograph, or with ``injected_probability`` an injected view.

        An injected view's camera carries no ``cam_idx``; its batch carries ``injected``, its loss target.
        """
        if self.injected and self.injected_probability > 0 and self._chance() < self.injected_probability:
            return self._injected_batch(self._draw_injected())
        return super().next_train(step)

    def _chance(self) -> float:
        return float(torch.rand((), generator=self.injection_generator))

    def _draw_injected(self) -> InjectedView:
        """One of the current round's views most of the time, else one of any earlier round."""
        current = [view for view in self.injected if view.round_index == self.current_round]
        earlier = [view for view in self.injected if view.round_index != self.current_round]
        pool = current if not earlier or (current and self._chance() < self.current_share) else earlier
        return pool[int(torch.randint(len(pool), (), generator=self.injection_generator))]

    def _injected_batch(self, injected: InjectedView) -> tuple[Cameras, dict[str, Any]]:
        batch = {"image": injected.target.image, "injected": injected.target, "densifies": injected.densifies}
        return cameras_of(injected.view).to(self.device), batch


def _unit_range(image: Tensor) -> Float[Tensor, "H W 3"]:
    image = image.float() / 255 if image.dtype == torch.uint8 else image
    return image[..., :3]
