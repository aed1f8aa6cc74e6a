"""The denoising loop of See3D in latent space (research dossier on See3D, 2.4 to 2.6).

A scene is a batch of F = R + N rows: R references, then N targets. The network sees nine channels of each:

    rows         0-3             4-7                       8
    references   clean latent    clean latent              1
    targets      noisy latent    visual condition V_t      mask, 1 where known
    (without)    noisy latent    zeros                     zeros

The last line is the targets in the unconditional branch, where the references are as above. Latents are kept in
float32 at least, whatever the network computes in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from closeup_ns.refine.see3d.schedule import visual_level, visual_weight

if TYPE_CHECKING:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

LATENT_CHANNELS = 4
INPUT_CHANNELS = 2 * LATENT_CHANNELS + 1


@dataclass(frozen=True, eq=False)
class SceneLatents:
    """What stays the same over the steps."""

    references: Float[Tensor, "R 4 h w"]
    """Scaled VAE latents of the clean pictures."""
    warped: Float[Tensor, "N 4 h w"]
    """Scaled VAE latents of what is known of the targets: their renders."""
    masks: Float[Tensor, "N 1 h w"]
    """1 where a target is known, 0 where the network invents."""
    context: Float[Tensor, "1 words channels"]
    """What every frame of both branches attends to."""

    @property
    def frames(self) -> int:
        """Rows of one branch."""
        return len(self.references) + len(self.warped)


@dataclass(frozen=True)
class SamplingOptions:
    """How a scene is denoised."""

    timesteps: Sequence[int]
    """Falling; the network is asked once at each."""
    steps: int
    """What ``timesteps`` was made for. A step of the scheduler spans 1000 // steps, which need not be the distance of
    two timesteps: the published sampling has it so (19 and 20 for 50)."""
    guidance: float
    """g of prediction = (1 + g) conditional - g unconditional; 0 leaves the unconditional branch out."""
    mixes_noise: bool
    """True: V_t is the noised warp mixed with the noisy latent (base stage). False: the clean warp (SR stage)."""


class PictureNoise:
    """Normal noise in which each picture has its own place in the stream of its generator.

    Args:
        generators: One per picture; the same one again and again draws picture by picture.
        device: Where the noise is wanted. It is drawn where its generator lives, in float32, so that a CPU generator
            gives the same noise for a network on any device and of any precision.
        dtype: Of what is returned.
    """

    def __init__(self, generators: Sequence[torch.Generator], device: torch.device, dtype: torch.dtype) -> None:
        self.generators, self.device, self.dtype = generators, device, dtype

    def draw(self, pictures: Iterable[int], shape: Sequence[int]) -> Float[Tensor, "P ..."]:
        """Fresh noise of ``shape`` for each of ``pictures``, in their order."""
        drawn = []
        for picture in pictures:
            generator = self.generators[picture]
            noise = torch.randn(tuple(shape), generator=generator, device=generator.device, dtype=torch.float32)
            drawn.append(noise.to(self.device, self.dtype))
        return torch.stack(drawn)


def visual_condition(
    warped: Float[Tensor, "N 4 h w"],
    latents: Float[Tensor, "N 4 h w"],
    noise: Float[Tensor, "N 4 h w"],
    timestep: int,
    alphas_cumprod: Float[Tensor, "T"],
) -> Float[Tensor, "N 4 h w"]:
    """V_t = W_t C + (1 - W_t) x_t, where C is the warp noised to level t // 5 of the same table of alphas."""
    alpha = float(alphas_cumprod[visual_level(timestep)])
    weight = visual_weight(timestep)
    noised = alpha**0.5 * warped + (1 - alpha) ** 0.5 * noise
    return weight * noised + (1 - weight) * latents


def network_input(
    scene: SceneLatents, latents: Float[Tensor, "N 4 h w"], visual: Float[Tensor, "N 4 h w"] | None
) -> Float[Tensor, "F 9 h w"]:
    """The rows of one branch; ``visual`` None is the unconditional one."""
    clean = scene.references
    ones = torch.ones_like(clean[:, :1])
    references = torch.cat([clean, clean, ones], dim=1)
    shown = torch.zeros_like(latents) if visual is None else visual
    masks = torch.zeros_like(scene.masks) if visual is None else scene.masks
    return torch.cat([references, torch.cat([latents, shown, masks], dim=1)])


def predict(
    unet: UNet2DConditionModel,
    scene: SceneLatents,
    latents: Float[Tensor, "N 4 h w"],
    visual: Float[Tensor, "N 4 h w"],
    timestep: int,
    options: SamplingOptions,
) -> Float[Tensor, "N 4 h w"]:
    """The network's guided prediction for the targets, of the dtype of ``latents``.

    The two branches are two calls: together they would take as long and hold twice the activations.
    """
    conditional = _ask(unet, scene, network_input(scene, latents, visual), timestep).to(latents.dtype)
    if options.guidance == 0:
        return conditional
    unconditional = _ask(unet, scene, network_input(scene, latents, None), timestep).to(latents.dtype)
    return (1 + options.guidance) * conditional - options.guidance * unconditional


def _ask(
    unet: UNet2DConditionModel, scene: SceneLatents, rows: Float[Tensor, "F 9 h w"], timestep: int
) -> Float[Tensor, "N 4 h w"]:
    """One call of the network; its answer about the targets."""
    answer = unet(
        rows.to(unet.dtype),
        timestep,
        encoder_hidden_states=scene.context.to(unet.dtype).expand(len(rows), -1, -1),
        cross_attention_kwargs={"num_frames": scene.frames},
        return_dict=False,
    )[0]
    return answer[len(scene.references) :]


def denoise(
    unet: UNet2DConditionModel,
    scheduler: DDIMScheduler,
    scene: SceneLatents,
    latents: Float[Tensor, "N 4 h w"],
    options: SamplingOptions,
    noise: PictureNoise,
    progress: Callable[[int, int], None],
) -> Float[Tensor, "N 4 h w"]:
    """The targets' latents after all steps.

    Args:
        latents: Where the targets start: noise of unit variance.
        noise: Its pictures are the frames, references first; drawn from at each step where ``mixes_noise``.
        progress: Called after each step with the number of steps done and the number of all.
    """
    targets = range(len(scene.references), scene.frames)
    scheduler.set_timesteps(options.steps)
    for index, timestep in enumerate(options.timesteps):
        visual = scene.warped
        if options.mixes_noise:
            fresh = noise.draw(targets, latents.shape[1:])
            visual = visual_condition(scene.warped, latents, fresh, timestep, scheduler.alphas_cumprod)
        prediction = predict(unet, scene, latents, visual, timestep, options)
        latents = scheduler.step(prediction, timestep, latents, return_dict=False)[0]
        progress(index + 1, len(options.timesteps))
    return latents
