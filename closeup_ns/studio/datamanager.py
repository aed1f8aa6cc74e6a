"""Real photographs, some of which can be held out for a while, and injected views beside them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.configs.dataparser_configs import AnnotatedDataParserUnion
from nerfstudio.data.datamanagers.full_images_datamanager import FullImageDatamanager, FullImageDatamanagerConfig
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from closeup_ns.data.dataparser import CloseupDataParserConfig
from closeup_ns.data.dataset import CloseupDataset, describe_masks
from closeup_ns.data.names import photograph_names
from closeup_ns.data.originals import Original
from closeup_ns.model.cameras import cameras_of, view_of
from closeup_ns.rounds.run import EvalPhotograph
from closeup_ns.rounds.views import InjectedView, NativeView
from closeup_ns.views.registration import moved
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


INJECTED_SHARE = 0.5
"""Of a round's steps that train on no native view, the share for an injected one; the others are for photographs."""
CURRENT_SHARE = 0.7
"""Of the steps on injected or native views, the share for the round's own rather than earlier rounds'."""
DrawnView = TypeVar("DrawnView", InjectedView, NativeView)


class CloseupDatamanager(FullImageDatamanager[CloseupDataset]):
    """Photographs as upstream serves them; injected views live beside the data set and not in it."""

    config: CloseupDatamanagerConfig
    held_out: frozenset[int] = frozenset()
    cameras: Tensor
    """[N, 27]: K, c2w (model's frame), width and height of each training view, for when the photographs are gone."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.injected: list[InjectedView] = []
        self.native: list[NativeView] = []
        self.native_share = 0.0
        self.pose_motion: dict[str, Float[Tensor, "6"]] = {}
        self.register_buffer("cameras", torch.zeros(len(self.train_dataset), 27, dtype=torch.float64))
        self.current_round = 0
        self.injected_probability = 0.0
        self.injection_generator = torch.Generator().manual_seed(self.config.train_cameras_sampling_seed)
        self.background = torch.zeros(3)
        """What shows through transparent pixels of photographs; the pipeline sets the model's own."""

    def get_extra_state(self) -> dict[str, Tensor]:
        """What torch keeps in checkpoints beside tensors of known size."""
        return dict(self.pose_motion)

    def set_extra_state(self, state: dict[str, Tensor]) -> None:
        self.pose_motion = dict(state)

    # ---- photographs

    def _load_images(self, split: Literal["train", "eval"], cache_images_device: Literal["cpu", "gpu"]) -> list[dict]:
        """As upstream, and says what the masks hide; DataError where that is everything."""
        loaded = super()._load_images(split, cache_images_device)
        cameras = (self.train_dataset if split == "train" else self.eval_dataset).cameras
        cameras.camera_type = torch.full_like(cameras.camera_type, CameraType.PERSPECTIVE.value)  # all are undistorted
        shares = [float(batch["mask"].float().mean()) for batch in loaded if "mask" in batch]
        if shares:
            CONSOLE.print(describe_masks(shares, split), soft_wrap=True)
        return loaded

    def sample_train_cameras(self) -> list[int]:
        return [index for index in super().sample_train_cameras() if index not in self.held_out]

    def hold_out(self, indices: Iterable[int]) -> None:
        """Keep these photographs out of training until told otherwise; an empty set releases all."""
        self.held_out = frozenset(indices)
        self.train_unseen_cameras = self.sample_train_cameras()

    def photograph(self, index: int) -> Float[Tensor, "H W 3"]:
        """Training photograph ``index`` as it is trained on (undistorted), in [0, 1], before the background."""
        return self.before_background(self.cached_train[index]["image"].to(self.device))

    def before_background(self, image: Tensor) -> Float[Tensor, "H W 3"]:
        """A picture [H, W, 3 or 4], uint8 or in [0, 1], as photographs are shown: in [0, 1], before the background."""
        image = image.float() / 255 if image.dtype == torch.uint8 else image
        colour, alpha = image[..., :3], image[..., 3:]
        return alpha * colour + (1 - alpha) * self.background.to(colour) if alpha.shape[-1] else colour

    def counted(self, index: int) -> Bool[Tensor, "H W"] | None:
        """Pixels of training photograph ``index`` that its mask lets count; None without a mask: all."""
        return _counted(self.cached_train[index], self.device)

    def shown(self, index: int) -> Bool[Tensor, "H W"] | None:
        """Pixels of training photograph ``index`` whose colour is the scene's; None: all.

        They are inside the mask and opaque, and so are their neighbours, into which whoever samples between pixels
        reaches. What a mask hides, or lies under transparency, never is a real colour of a close-up.
        """
        return _shown(self.cached_train[index]["image"].to(self.device), self.counted(index))

    def eval_photographs(self) -> Iterator[EvalPhotograph]:
        """The evaluation split, one photograph at a time, for reports.

        Nothing that trains or decides may call this.
        """
        return (self.eval_photograph(index) for index in range(len(self.eval_dataset)))

    def eval_photograph(self, index: int) -> EvalPhotograph:
        """Photograph ``index`` of the evaluation split. Nothing that trains or decides may call this."""
        cached = self.cached_eval[index]  # undistortion rewrites the intrinsics
        image = self.before_background(cached["image"].to(self.device))
        return view_of(self.eval_dataset.cameras, index).to(self.device), image, _counted(cached, self.device)

    def photograph_names(self) -> list[str]:
        """Names of the training photographs, in index order: of their files, with folders where those repeat."""
        return photograph_names(self.train_dataset.image_filenames)

    def frame(self) -> tuple[Float[Tensor, "3 4"], float]:
        """Transform and scale from the capture's frame to the model's."""
        outputs = self.train_dataparser_outputs
        return outputs.dataparser_transform, float(outputs.dataparser_scale)

    def train_view(self, index: int) -> View:
        """View of training photograph ``index``, after undistortion."""
        _ = self.cached_train  # undistortion rewrites the intrinsics
        return view_of(self.train_dataset.cameras, index).to(self.device)

    def train_views(self) -> list[View]:
        """Views of all training photographs, after undistortion."""
        return [self.train_view(index) for index in range(len(self.train_dataset))]

    def remember_cameras(self) -> None:
        """Let checkpoints hold the training views; `views_remembered` reads them."""
        views = self.train_views()
        rows = [[*view.K.flatten(), *view.c2w.flatten(), view.width, view.height] for view in views]
        self.cameras.copy_(torch.tensor(rows, dtype=torch.float64))

    # ---- native views

    def originals(self) -> list[Original | None]:
        """The original of each training photograph, None where there is none that is finer."""
        return _originals(self.train_dataset)

    def eval_originals(self) -> list[Original | None]:
        """The original of each photograph of the evaluation split. Nothing that trains or decides may call this."""
        return _originals(self.eval_dataset)

    def native_view(self, native: NativeView) -> View:
        """Where a native view is taken from: its photograph's pose, moved by what `pose_motion` says."""
        view, motion = native.view, self.pose_motion.get(native.name)
        placed = View(view.K.to(self.device), self.train_view(native.photograph).c2w, view.width, view.height)
        return placed if motion is None else moved(placed, motion)

    def native_image(self, native: NativeView) -> tuple[Float[Tensor, "H W 3"], Bool[Tensor, "H W"] | None]:
        """A native view's colours in [0, 1], before the background, and its pixels that count (None: all)."""
        pixels, mask = native.read()
        return self.before_background(pixels.to(self.device)), None if mask is None else mask.to(self.device)

    def native_shown(self, native: NativeView) -> Bool[Tensor, "H W"] | None:
        """Pixels of a native view whose colour is the scene's, as `shown`."""
        pixels, mask = native.read()
        return _shown(pixels.to(self.device), None if mask is None else mask.to(self.device))

    def _native_batch(self, native: NativeView) -> tuple[Cameras, dict[str, Any]]:
        pixels, mask = native.read()
        batch: dict[str, Any] = {"image": pixels.to(self.device), "image_idx": native.photograph}
        if mask is not None:
            batch["mask"] = mask[..., None].to(self.device)
        camera = cameras_of(self.native_view(native))
        camera.metadata = {"cam_idx": native.photograph, "stream": native.round_index}
        return camera, {**batch, "densifies": True}

    # ---- injected views

    def next_train(self, step: int) -> tuple[Cameras, dict[str, Any]]:
        """The next photograph, with ``native_share`` a native view, or with ``injected_probability`` an injected one.

        An injected view's camera carries no ``cam_idx``; its batch carries ``injected``, its loss target.
        """
        native = [view for view in self.native if view.photograph not in self.held_out]
        if native and self._chance() < self.native_share:
            return self._native_batch(self._draw(native))
        if self.injected and self.injected_probability > 0 and self._chance() < self.injected_probability:
            return self._injected_batch(self._draw(self.injected))
        return super().next_train(step)

    def mix(self, number: int, native_share: float) -> None:
        """Say what the steps of round ``number`` train on; ``native_share`` of them on native views."""
        self.current_round, self.native_share, self.injected_probability = number, native_share, INJECTED_SHARE

    def sampler_state(self) -> Any:
        """What decides which photograph or view comes next; `restore_sampler` takes it."""
        random = self.random_generator.getstate() if hasattr(self, "random_generator") else None
        return list(self.train_unseen_cameras), random, self.injection_generator.get_state()

    def restore_sampler(self, state: Any) -> None:
        """Go on drawing as from `sampler_state`."""
        unseen, random, injection = state
        self.train_unseen_cameras = list(unseen)
        if random is not None:
            self.random_generator.setstate(random)
        self.injection_generator.set_state(injection)

    def _chance(self) -> float:
        return float(torch.rand((), generator=self.injection_generator))

    def _draw(self, views: Sequence[DrawnView]) -> DrawnView:
        """One of the current round's views most of the time, else one of any earlier round."""
        current = [view for view in views if view.round_index == self.current_round]
        earlier = [view for view in views if view.round_index != self.current_round]
        pool = current if not earlier or (current and self._chance() < CURRENT_SHARE) else earlier
        return pool[int(torch.randint(len(pool), (), generator=self.injection_generator))]

    def _injected_batch(self, injected: InjectedView) -> tuple[Cameras, dict[str, Any]]:
        batch = {"image": injected.target.image, "injected": injected.target, "densifies": injected.densifies}
        return cameras_of(injected.view).to(self.device), batch


def views_remembered(cameras: Float[Tensor, "N 27"]) -> list[View]:
    """The views that `CloseupDatamanager.cameras` holds, in float32."""
    return [
        View(K.view(3, 3), c2w.view(4, 4), *map(int, size))
        for K, c2w, size in (row.split((9, 16, 2)) for row in cameras.float())
    ]


def _originals(dataset: CloseupDataset) -> list[Original | None]:
    found = dataset.metadata.get("originals")
    return list(found) if found else [None] * len(dataset)


def _counted(batch: dict[str, Any], device: torch.device | str) -> Bool[Tensor, "H W"] | None:
    return batch["mask"][..., 0].to(device).bool() if "mask" in batch else None


def _shown(image: Tensor, counted: Bool[Tensor, "H W"] | None) -> Bool[Tensor, "H W"] | None:
    found = [part for part in (counted, _opaque(image)) if part is not None]
    return _without_border(torch.stack(found).all(0)) if found else None


def _opaque(image: Tensor) -> Bool[Tensor, "H W"] | None:
    """Where a photograph lets nothing through; None where it has no alpha channel."""
    if image.shape[-1] < 4:
        return None
    return image[..., 3] >= (255 if image.dtype == torch.uint8 else 1.0)


def _without_border(mask: Bool[Tensor, "H W"]) -> Bool[Tensor, "H W"]:
    """``mask`` without the pixels that touch one outside of it."""
    return F.max_pool2d((~mask).float()[None, None], 3, stride=1, padding=1)[0, 0] == 0
