"""What a joint pass costs on a GPU, computed without one: bytes of live tensors and floating-point operations.

The full-size network is run with tensors that have sizes but no content (torch's FakeTensorMode), by the very function
that the pipeline calls at each step, while every storage is followed from its birth to its end. What is counted is what
torch.cuda.max_memory_allocated would count, but for rounding and for what a kernel takes for itself while it runs
(cuDNN's workspaces). Attention is assumed to be fused, as it is on every GPU since Maxwell.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from closeup_ns.refine.see3d.attention import join_frames
from closeup_ns.refine.see3d.sampling import LATENT_CHANNELS, SamplingOptions, SceneLatents, predict
from closeup_ns.refine.see3d.shape import IN_CHANNELS, OUT_CHANNELS, UNetShape
from closeup_ns.refine.see3d.unet import build

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPVisionModelWithProjection

GIB = 2**30
FULL_SIZE = UNetShape(
    in_channels=IN_CHANNELS, out_channels=OUT_CHANNELS, widths=(320, 640, 1280, 1280),
    attends=(True, True, True, False), heads=(5, 10, 20, 20), layers=2, depth=1, context=1024, linear=True,
)  # fmt: skip
"""The published network: Stable Diffusion 2.1's with nine input channels (research dossier on See3D, 2.1)."""
_VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "sample_size": 768,
    "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
}  # fmt: skip
_LATENT_SCALE = 8
_WORDS = 77
_TIMESTEP = 500


@dataclass(frozen=True)
class JointPass:
    """What is asked of the GPU."""

    frames: int = 18
    """References and targets."""
    height: int = 512
    """Pixels; a multiple of 64."""
    width: int = 512
    """Pixels; a multiple of 64."""
    dtype: torch.dtype = torch.float16
    """Of every tower but CLIP's vision tower, which is float32."""
    batched_guidance: bool = True
    """Both branches of the guidance in one call of the network."""


@dataclass(frozen=True)
class Budget:
    """Bytes that a pass needs at once, in its three parts."""

    weights: dict[str, int]
    """Of each tower, by the pipeline's names."""
    encoding: int
    """Most that is live, beyond the weights, while the VAE encodes one picture."""
    denoising: int
    """The same for one step of the denoising, latents and context included."""
    decoding: int
    """The same while the VAE decodes one picture."""
    step_flops: int = 0
    """Operations of one step, both branches; an addition and a multiplication are two."""

    def peak(self, offloaded: bool = False) -> int:
        """The most bytes at any moment; ``offloaded``: only the towers at work are on the GPU.

        The VAE stays there in either case, as in the pipeline: nothing that follows it in the chain drives it out.
        """
        if not offloaded:
            return sum(self.weights.values()) + max(self.encoding, self.denoising, self.decoding)
        vae, unet = self.weights["vae"], self.weights["unet"]
        context = max(self.weights["text_encoder"], self.weights["image_encoder"])
        return vae + max(self.encoding, context, unet + self.denoising, self.decoding)


@dataclass(frozen=True, eq=False)
class Towers:
    """The models of the pipeline."""

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoder: CLIPTextModel
    image_encoder: CLIPVisionModelWithProjection

    def items(self) -> Iterable[tuple[str, nn.Module]]:
        """Names as the pipeline has them, and the towers."""
        return vars(self).items()


def full_size_towers(device: torch.device | str = "meta") -> Towers:
    """Towers of the published sizes with diffusers' and transformers' random values; the UNet always on "meta"."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModelWithProjection

    text = CLIPTextConfig(
        vocab_size=49408, hidden_size=1024, intermediate_size=4096, num_hidden_layers=23, num_attention_heads=16,
        hidden_act="gelu",
    )  # fmt: skip
    vision = CLIPVisionConfig(
        hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=16, image_size=224,
        patch_size=14, projection_dim=1024, hidden_act="gelu",
    )  # fmt: skip
    with torch.device(device):
        vae = AutoencoderKL(**_VAE)
        return Towers(
            build(FULL_SIZE).eval(),
            vae.eval(),
            CLIPTextModel(text).eval(),
            CLIPVisionModelWithProjection(vision).eval(),
        )


@dataclass(eq=False)
class LiveBytes(TorchDispatchMode):
    """Follows the storages that are made while it is entered: ``most`` is how many bytes were live at once.

    Views and results of in-place operations belong to the storage that they are views of.
    """

    resident: Iterable[Tensor] = ()
    """Tensors from before, which are not counted."""
    now: int = 0
    most: int = 0
    _known: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__()
        # Held, so that no other storage can come to lie where one of these was.
        self._resident = [tensor.untyped_storage() for tensor in self.resident]
        self._known.update({storage._cdata: 0 for storage in self._resident})

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._follow(tensor.untyped_storage())
        self.most = max(self.most, self.now)
        return result

    def _follow(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self._known:
            self._known[key] = storage.nbytes()
            self.now += storage.nbytes()
            weakref.finalize(storage, self._gone, key)

    def _gone(self, key: int) -> None:
        self.now -= self._known.pop(key)


def compute_budget(asked: JointPass, towers: Towers | None = None) -> Budget:
    """The budget of a pass of the full-size model, or of ``towers``, which lie on "meta" and are used up by it.

    Takes seconds.

    Raises:
        ValueError: sides that are no multiples of 64, or fewer than two frames.
    """
    if asked.height % 64 or asked.width % 64 or asked.frames < 2:
        raise ValueError(f"a pass has at least two frames and sides that are multiples of 64 pixels, not {asked}")
    towers = towers or full_size_towers()
    weights = {
        name: sum(parameter.numel() for parameter in tower.parameters())
        * (4 if name == "image_encoder" else asked.dtype.itemsize)
        for name, tower in towers.items()
    }
    join_frames(towers.unet)
    shapes = [{name: tuple(value.shape) for name, value in tower.state_dict().items()} for tower in
              (towers.unet, towers.vae)]  # fmt: skip
    with FakeTensorMode(), torch.no_grad():
        for tower, sizes in zip((towers.unet, towers.vae), shapes):
            empty = {name: torch.empty(size, dtype=asked.dtype) for name, size in sizes.items()}
            tower.load_state_dict(empty, assign=True)
        encoding, decoding = _autoencoding(towers.vae, asked)
        denoising = _denoising(towers.unet, asked)
        with FlopCounterMode(display=False, custom_mapping=_FUSED_ATTENTION) as counter:
            _step(towers.unet, asked)
    return Budget(weights, encoding, denoising, decoding, counter.get_total_flops())


def _attention_flops(query: Any, key: Any, value: Any, *_rest: Any, **_more: Any) -> int:
    return sdpa_flop_count(query, key, value)


# The stand-in tensors are on the CPU, whose fused attention torch's counter does not know.
_FUSED_ATTENTION = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops}


def _autoencoding(vae: AutoencoderKL, asked: JointPass) -> tuple[int, int]:
    picture = torch.empty((1, 3, asked.height, asked.width), dtype=asked.dtype)
    with LiveBytes(vae.parameters()) as encoding:
        vae.encode(picture)
    latent = torch.empty((1, *_latent_shape(asked)), dtype=asked.dtype)
    with LiveBytes(vae.parameters()) as decoding:
        vae.decode(latent)  # pyright: ignore[reportArgumentType]
    return encoding.most, decoding.most


def _denoising(unet: UNet2DConditionModel, asked: JointPass) -> int:
    with LiveBytes(unet.parameters()) as live:
        _step(unet, asked)
    return live.most


def _step(unet: UNet2DConditionModel, asked: JointPass) -> Tensor:
    """One step as the pipeline takes it. How many of the frames are references does not matter to its cost."""
    channels, height, width = _latent_shape(asked)
    targets = asked.frames - 1
    scene = SceneLatents(
        references=torch.empty((1, channels, height, width)),
        warped=torch.empty((targets, channels, height, width)),
        masks=torch.empty((targets, 1, height, width)),
        context=torch.empty((1, _WORDS, unet.config["cross_attention_dim"])),
    )
    options = SamplingOptions([_TIMESTEP], 1, 2.0, mixes_noise=True, batched_guidance=asked.batched_guidance)
    latents, visual = torch.empty_like(scene.warped), torch.empty_like(scene.warped)
    return predict(unet, scene, latents, visual, _TIMESTEP, options)


def _latent_shape(asked: JointPass) -> tuple[int, int, int]:
    return LATENT_CHANNELS, asked.height // _LATENT_SCALE, asked.width // _LATENT_SCALE
