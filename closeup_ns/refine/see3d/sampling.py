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

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from closeup_ns.refine.see3d.schedule import timesteps, visual_level, visual_weight
from closeup_ns.refine.see3d.stage import Stage

if TYPE_CHECKING:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler


@dataclass(frozen=True, eq=False)
class SceneLatents:
    """What stays the same over the steps."""

    references: Float[Tensor, "R 4 h w"]
    """Scaled VAE latents of the clean pictures."""
    warped: Float[Tensor, "N 4 h w"]
    """Scaled VAE latents of what is known of the targets: their renders."""
    masks: Float[Tensor, "N 1 h w"]
    """1 where a target is known, 0 where the network invents."""
    context: Float[Tensor, "1 tokens channels"]
    """What every frame of both branches attends to."""

    @property
    def frames(self) -> int:
        """Rows of one branch."""
        return len(self.references) + len(self.warped)


def drawn(generators: Sequence[torch.Generator], like: Float[Tensor, "P ..."]) -> Float[Tensor, "P ..."]:
    """Normal noise of the shape, type and device of ``like``, each picture's from its own generator.

    It is drawn where its generator lives, in float32, so that a CPU generator gives the same noise for a network on
    any device and of any precision.
    """
    shape = like.shape[1:]
    return torch.stack(
        [torch.randn(shape, generator=each, device=each.device, dtype=torch.float32).to(like) for each in generators]
    )


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
    guidance: float,
) -> Float[Tensor, "N 4 h w"]:
    """(1 + g) conditional - g unconditional prediction for the targets, in the type of ``latents``; g is ``guidance``.

    The two branches are two calls: together they would take as long and hold twice the activations.
    """
    conditional = _target_rows(unet, scene, network_input(scene, latents, visual), timestep).to(latents.dtype)
    unconditional = _target_rows(unet, scene, network_input(scene, latents, None), timestep).to(latents.dtype)
    return (1 + guidance) * conditional - guidance * unconditional


def _target_rows(
    unet: UNet2DConditionModel, scene: SceneLatents, rows: Float[Tensor, "F 9 h w"], timestep: int
) -> Float[Tensor, "N 4 h w"]:
    """One call of the network; its output for the targets."""
    output = unet(
        rows.to(unet.dtype),
        timestep,
        encoder_hidden_states=scene.context.to(unet.dtype).expand(len(rows), -1, -1),
        cross_attention_kwargs={"num_frames": scene.frames},
        return_dict=False,
    )[0]
    return output[len(scene.references) :]


def denoise(
    unet: UNet2DConditionModel,
    scheduler: DDIMScheduler,
    scene: SceneLatents,
    latents: Float[Tensor, "N 4 h w"],
    stage: Stage,
    steps: int,
    generators: Sequence[torch.Generator],
    progress: Callable[[int, int], None],
) -> Float[Tensor, "N 4 h w"]:
    """The targets' latents after all steps.

    A step of the scheduler spans 1000 // steps, which need not be the distance of two timesteps: the published sampling
    has it so (19 and 20 for 50).

    Args:
        latents: Where the targets start: noise of unit variance.
        steps: Steps asked for (``schedule.timesteps``).
        generators: One per target; drawn from at each step where the stage mixes noise.
        progress: Called after each step with the number of steps done and the number of all.
    """
    moments = timesteps(steps, scheduler.config["timestep_spacing"])
    scheduler.set_timesteps(steps)
    for index, timestep in enumerate(moments):
        visual = scene.warped
        if stage.mixes_noise:
            fresh = drawn(generators, latents)
            visual = visual_condition(scene.warped, latents, fresh, timestep, scheduler.alphas_cumprod)
        prediction = predict(unet, scene, latents, visual, timestep, stage.guidance)
        latents = scheduler.step(prediction, timestep, latents, return_dict=False)[0]
        progress(index + 1, len(moments))
    return latents
