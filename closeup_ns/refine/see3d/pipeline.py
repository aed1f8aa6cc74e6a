"""See3D as a diffusers pipeline of stock parts: references, renders and masks in, harmonised targets out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from jaxtyping import Bool, Float
from torch import Tensor

from closeup_ns.errors import RefinerError
from closeup_ns.refine.see3d.attention import join_frames
from closeup_ns.refine.see3d.sampling import (
    INPUT_CHANNELS,
    LATENT_CHANNELS,
    PictureNoise,
    SamplingOptions,
    SceneLatents,
    denoise,
)
from closeup_ns.refine.see3d.schedule import timesteps
from closeup_ns.refine.see3d.stage import BASE, SR, Stage
from closeup_ns.refine.see3d.weights import UNetName

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler
    from transformers import CLIPImageProcessor, CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

Generators = torch.Generator | Sequence[torch.Generator]

SIDE_MULTIPLE = 64
"""Both sides of a picture, pixels: 8 in the VAE times 8 in the UNet."""
_IMAGE_SHARE = 0.2
"""Weight of the first reference's CLIP embedding in the context."""


@dataclass(frozen=True, eq=False)
class See3DOutput:
    """What one joint pass made."""

    images: Float[Tensor, "N 3 H W"]
    """RGB in [0, 1], float32, where the renders were. NaN where the network said NaN."""
    evaluations: int
    """How often the network was steps_wanted; both branches of the guidance are one question."""


class See3DPipeline(DiffusionPipeline):
    """One joint pass of See3D over references and targets.

    Args:
        unet: Nine channels in; its attention is replaced so that it joins frames.
        scheduler: As ``schedule.make_scheduler`` makes it: ``config.timestep_spacing`` chooses the timesteps.
        stage: As whose network ``unet`` was trained.

    Raises:
        RefinerError: ``unet`` has not nine input channels.
    """

    # The VAE comes last although it works first too: it is by far the smallest, and this way it is the UNet that makes
    # room for the decoding.
    model_cpu_offload_seq = "text_encoder->image_encoder->unet->vae"

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    image_encoder: CLIPVisionModelWithProjection
    feature_extractor: CLIPImageProcessor
    scheduler: DDIMScheduler

    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        image_encoder: CLIPVisionModelWithProjection,
        feature_extractor: CLIPImageProcessor,
        unet: UNet2DConditionModel,
        scheduler: DDIMScheduler,
        stage: Stage = BASE,
    ) -> None:
        super().__init__()
        if unet.config["in_channels"] != INPUT_CHANNELS:
            raise RefinerError(
                f"See3D's network takes {INPUT_CHANNELS} channels (latent, visual condition, mask), this one "
                f"{unet.config['in_channels']}: is it of another model?"
            )
        join_frames(unet)
        # As published: the VAE works in tiles where a picture is larger than its own config's sample_size.
        vae.enable_tiling()
        self.register_modules(
            vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, image_encoder=image_encoder,
            feature_extractor=feature_extractor, unet=unet, scheduler=scheduler,
        )  # fmt: skip
        self.stage = stage

    @classmethod
    def from_folder(
        cls,
        folder: Path,
        unet: UNetName = "sparse",
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> See3DPipeline:
        """Builds the pipeline from the published files.

        Args:
            folder: MVD_weights (``weights.weights_folder``).
            unet: Which of the published networks; ``SR`` makes a pipeline of the SR stage.
            dtype: Of every tower but CLIP's vision tower, which stays in float32.
            device: Where the towers are put; "cpu" where ``enable_model_cpu_offload`` follows.

        Raises:
            RefinerError: files are missing, damaged, of another model, or their scheduler cannot be used.
        """
        from closeup_ns.refine.see3d.loading import load_parts

        return cls(**load_parts(folder, unet, dtype, torch.device(device)), stage=SR if unet == "SR" else BASE)

    @torch.no_grad()
    def __call__(
        self,
        references: Float[Tensor, "R 3 H W"],
        renders: Float[Tensor, "N 3 H W"],
        masks: Bool[Tensor, "N H W"],
        *,
        generator: Generators,
        steps: int | None = None,
        latents: Float[Tensor, "N 4 h w"] | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> See3DOutput:
        """Harmonises and completes ``renders`` in one joint pass (dossier 2.4 to 2.8).

        The same generator state gives the same bits on a CPU for the same number of threads; torch's own convolutions
        and activations round differently for another one (by 2e-6 in the tiny towers' images).

        Args:
            references: Clean pictures, RGB in [0, 1]. The first one also gives the CLIP embedding.
            renders: The targets as far as they are known.
            masks: True where a render is right. It is shrunk by nearest neighbour: erode it first.
            generator: All randomness, drawn on its own device picture by picture, references first; or one generator
                for each picture in that order, which makes the noise of each independent of the others.
            steps: Asked for, from 1 to 999; None: the stage's. The published spacing takes some more.
            latents: Where the targets start, h = H / 8; None: drawn.
            progress: Called after each step with the steps done and their number.

        Raises:
            ValueError: sizes that are no multiples of 64 or not equal, or arguments that do not fit each other.
            RefinerError: there is no reference.
        """
        self._check_pictures(references, renders, masks)
        options = self._options(steps)
        # Half precision is the network's: sums over fifty steps are kept in more.
        dtype = torch.promote_types(self.unet.dtype, torch.float32)
        generators = _per_picture(generator, len(references) + len(renders))
        noise = PictureNoise(generators, self._execution_device, dtype)
        try:
            scene = self._encode_scene(references, renders, masks, noise)
            start = self._start(latents, scene, noise)
            with self.progress_bar(total=len(options.timesteps)) as bar:  # pyright: ignore[reportCallIssue]

                def advance(done: int, total: int) -> None:
                    bar.update()
                    if progress is not None:
                        progress(done, total)

                final = denoise(self.unet, self.scheduler, scene, start, options, noise, advance)
            images = self._decode(final).to(renders.device)
        finally:
            self.maybe_free_model_hooks()
        return See3DOutput(images, len(options.timesteps))

    def _options(self, steps: int | None) -> SamplingOptions:
        steps_wanted = self.stage.steps if steps is None else steps
        return SamplingOptions(
            timesteps=timesteps(steps_wanted, spacing=self.scheduler.config["timestep_spacing"]),
            steps=steps_wanted,
            guidance=self.stage.guidance,
            mixes_noise=self.stage.mixes_noise,
        )

    def _check_pictures(self, references: Tensor, renders: Tensor, masks: Tensor) -> None:
        if references.ndim != 4 or renders.ndim != 4 or references.shape[1] != 3 or renders.shape[1] != 3:
            raise ValueError(
                "references and renders must be [pictures, 3, height, width], not "
                f"{list(references.shape)} and {list(renders.shape)}"
            )
        if len(references) == 0:
            raise RefinerError("See3D needs at least one reference: a clean picture of the scene to take detail from")
        if len(renders) == 0:
            raise ValueError("there is no render to refine")
        height, width = renders.shape[2:]
        if references.shape[2:] != renders.shape[2:]:
            sizes = f"{references.shape[3]}x{references.shape[2]} and {width}x{height}"
            raise ValueError(f"references and renders must be of one size, not {sizes}")
        if masks.shape != (len(renders), height, width) or masks.dtype != torch.bool:
            raise ValueError(
                f"masks must be bool [{len(renders)}, {height}, {width}] as the renders, not "
                f"{masks.dtype} {list(masks.shape)}"
            )
        if height % SIDE_MULTIPLE or width % SIDE_MULTIPLE:
            raise ValueError(f"both sides must be multiples of {SIDE_MULTIPLE} pixels, not {width}x{height}")

    def _encode_scene(self, references: Tensor, renders: Tensor, masks: Tensor, noise: PictureNoise) -> SceneLatents:
        pictures = [*references, *renders]
        latents = torch.stack([self._encode(picture, noise, index) for index, picture in enumerate(pictures)])
        count = len(references)
        small = F.interpolate(masks[:, None].to(noise.device, noise.dtype), size=latents.shape[2:], mode="nearest")
        return SceneLatents(latents[:count], latents[count:], small, self._context(references[0], noise))

    def _encode(self, picture: Float[Tensor, "3 H W"], noise: PictureNoise, index: int) -> Float[Tensor, "4 h w"]:
        """A sample of one picture's latent, scaled: the VAE's activations for a whole scene would exceed the UNet's."""
        pixels = picture.to(noise.device, self.vae.dtype)[None] * 2 - 1
        posterior = self.vae.encode(pixels).latent_dist  # pyright: ignore[reportAttributeAccessIssue]
        mean, deviation = posterior.mean.to(noise.dtype), posterior.std.to(noise.dtype)
        sample = mean + deviation * noise.draw([index], mean.shape[1:])
        return sample[0] * self.vae.config["scaling_factor"]

    def _decode(self, latents: Float[Tensor, "N 4 h w"]) -> Float[Tensor, "N 3 H W"]:
        scaled = (latents / self.vae.config["scaling_factor"]).to(self.vae.dtype)
        pictures = [self.vae.decode(each, return_dict=False)[0].float() for each in scaled.split(1)]
        return (torch.cat(pictures) / 2 + 0.5).clamp(0, 1)

    def _context(self, reference: Float[Tensor, "3 H W"], noise: PictureNoise) -> Float[Tensor, "1 words channels"]:
        """The empty prompt's embedding plus a share of the first reference's, the same for every frame and branch."""
        words = self.tokenizer(
            "", padding="max_length", max_length=self.tokenizer.model_max_length, truncation=True, return_tensors="pt"
        ).input_ids
        prompt = self.text_encoder(words.to(noise.device))[0]
        # The preprocessing of older transformers goes through 8-bit pictures and refuses 1.0000001.
        picture = reference.float().cpu().clamp(0, 1)
        pixels = self.feature_extractor(images=picture, do_rescale=False, return_tensors="pt")["pixel_values"]
        seen = self.image_encoder(pixels.to(noise.device, self.image_encoder.dtype)).image_embeds
        return prompt.to(noise.dtype) + _IMAGE_SHARE * seen[:, None].to(noise.dtype)

    def _start(self, latents: Tensor | None, scene: SceneLatents, noise: PictureNoise) -> Float[Tensor, "N 4 h w"]:
        expected = (len(scene.warped), LATENT_CHANNELS, *scene.warped.shape[2:])
        if latents is None:
            return noise.draw(range(len(scene.references), scene.frames), expected[1:])
        if latents.shape != expected:
            raise ValueError(f"latents must be {list(expected)}, not {list(latents.shape)}")
        return latents.to(noise.device, noise.dtype)


def _per_picture(generator: Generators, pictures: int) -> Sequence[torch.Generator]:
    if isinstance(generator, torch.Generator):
        return [generator] * pictures
    if len(generator) != pictures:
        raise ValueError(f"{len(generator)} generators for {pictures} pictures: give one, or one for each")
    return generator
