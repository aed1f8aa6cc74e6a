"""See3D as a diffusers pipeline of stock parts: references, renders and masks in, harmonised targets out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from jaxtyping import Bool, Float
from torch import Tensor, nn

from closeup_ns.refine.see3d.sampling import SceneLatents, denoise, drawn
from closeup_ns.refine.see3d.stage import BASE, Stage

if TYPE_CHECKING:
    from diffusers.models.attention_processor import Attention
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler
    from transformers import CLIPImageProcessor, CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

_IMAGE_SHARE = 0.2
"""Weight of the first reference's CLIP embedding in the context."""


class See3DPipeline(DiffusionPipeline):
    """One joint pass of See3D over references and targets.

    Args:
        unet: Nine channels in; its attention is replaced so that it joins frames.
        scheduler: As ``schedule.make_scheduler`` makes it: ``config.timestep_spacing`` chooses the timesteps.
        stage: As whose network ``unet`` was trained.
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
        stage: Stage = BASE,  # diffusers takes arguments without a default for modules
    ) -> None:
        super().__init__()
        unet.set_attn_processor(JoinedAttention())  # pyright: ignore[reportArgumentType]
        # As published: the VAE works in tiles where a picture is larger than its own config's sample_size.
        vae.enable_tiling()
        self.register_modules(
            vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, image_encoder=image_encoder,
            feature_extractor=feature_extractor, unet=unet, scheduler=scheduler,
        )  # fmt: skip
        self.stage = stage

    @torch.no_grad()
    def __call__(
        self,
        references: Float[Tensor, "R 3 H W"],
        renders: Float[Tensor, "N 3 H W"],
        masks: Bool[Tensor, "N H W"],
        *,
        latents: Float[Tensor, "N 4 h w"],
        generators: Sequence[torch.Generator],
        steps: int,
        progress: Callable[[int, int], None],
    ) -> Float[Tensor, "N 3 H W"]:
        """Harmonises and completes ``renders`` in one joint pass (dossier 2.4 to 2.8).

        The same generator state gives the same bits on a CPU for the same number of threads; torch's own convolutions
        and activations round differently for another one (by 2e-6 in the tiny towers' images).

        Args:
            references: Clean pictures, RGB in [0, 1], at least one; sides are multiples of 64 pixels. The first one
                also gives the CLIP embedding.
            renders: The targets as far as they are known.
            masks: True where a render is right. It is shrunk by nearest neighbour: erode it first.
            latents: Where the targets start, h = H / 8.
            generators: All randomness: one per picture, references first. Each draws on its own device.
            steps: Asked for, from 1 to 999. The published spacing takes some more.
            progress: Called after each step with the steps done and their number.

        Returns:
            RGB in [0, 1], float32, where the renders were. NaN where the network said NaN.
        """
        try:
            scene = self._encode_scene(references, renders, masks, generators)
            targets = generators[len(references) :]
            start = latents.to(scene.warped)
            final = denoise(self.unet, self.scheduler, scene, start, self.stage, steps, targets, progress)
            return self._decode(final).to(renders.device)
        finally:
            self.maybe_free_model_hooks()

    def _encode_scene(
        self, references: Tensor, renders: Tensor, masks: Tensor, generators: Sequence[torch.Generator]
    ) -> SceneLatents:
        pictures = zip([*references, *renders], generators, strict=True)
        latents = torch.cat([self._encode(picture, generator) for picture, generator in pictures])
        count = len(references)
        small = F.interpolate(masks[:, None].to(latents), size=latents.shape[2:], mode="nearest")
        return SceneLatents(latents[:count], latents[count:], small, self._context(references[0], latents))

    def _encode(self, picture: Float[Tensor, "3 H W"], generator: torch.Generator) -> Float[Tensor, "1 4 h w"]:
        """A sample of one picture's latent, scaled: the VAE's activations for a whole scene would exceed the UNet's."""
        pixels = picture.to(self._execution_device, self.vae.dtype)[None] * 2 - 1
        posterior = self.vae.encode(pixels).latent_dist  # pyright: ignore[reportAttributeAccessIssue]
        # Half precision is the network's: sums over fifty steps are kept in more.
        dtype = torch.promote_types(self.unet.dtype, torch.float32)
        mean, deviation = posterior.mean.to(dtype), posterior.std.to(dtype)
        return (mean + deviation * drawn([generator], mean)) * self.vae.config["scaling_factor"]

    def _decode(self, latents: Float[Tensor, "N 4 h w"]) -> Float[Tensor, "N 3 H W"]:
        scaled = (latents / self.vae.config["scaling_factor"]).to(self.vae.dtype)
        pictures = [self.vae.decode(each, return_dict=False)[0].float() for each in scaled.split(1)]
        return (torch.cat(pictures) / 2 + 0.5).clamp(0, 1)

    def _context(self, reference: Float[Tensor, "3 H W"], like: Tensor) -> Float[Tensor, "1 tokens channels"]:
        """The empty prompt's embedding plus a share of the first reference's, the same for every frame and branch."""
        prompt = self.tokenizer(
            "", padding="max_length", max_length=self.tokenizer.model_max_length, truncation=True, return_tensors="pt"
        ).input_ids
        text = self.text_encoder(prompt.to(like.device))[0]
        # The preprocessing of older transformers goes through 8-bit pictures and refuses 1.0000001.
        picture = reference.float().cpu().clamp(0, 1)
        pixels = self.feature_extractor(images=picture, do_rescale=False, return_tensors="pt")["pixel_values"]
        embedding = self.image_encoder(pixels.to(like.device, self.image_encoder.dtype)).image_embeds
        return text.to(like) + _IMAGE_SHARE * embedding[:, None].to(like)


class JoinedAttention:
    """Attention processor for diffusers' ``Attention`` that lets a token see every frame of its own branch.

    See3D's network differs from Stable Diffusion 2.1's in nothing else: no camera, no index and no time of a frame
    enters it, so the frames of a scene are a set (research dossier on See3D, 2.1 and 2.2).

    It keeps no state: the number of frames comes with each call of the network, as
    ``unet(..., cross_attention_kwargs={"num_frames": F})``. Rows ``b * F .. (b + 1) * F - 1`` of the batch are the
    frames of branch ``b``. Attention to a context (``attn2``) stays within each frame.
    """

    def __call__(
        self,
        attn: Attention,
        hidden_states: Float[Tensor, "branches*frames tokens channels"],
        encoder_hidden_states: Float[Tensor, "branches*frames text context"] | None = None,
        attention_mask: Tensor | None = None,
        num_frames: int = 1,
    ) -> Float[Tensor, "branches*frames tokens channels"]:
        """One attention layer with its output projection. Stable Diffusion's UNet never passes a mask."""
        rows, tokens, _ = hidden_states.shape
        if encoder_hidden_states is None:
            hidden_states = hidden_states.reshape(rows // num_frames, num_frames * tokens, -1)
            encoder_hidden_states = hidden_states
        to_key, to_value = cast(nn.Module, attn.to_k), cast(nn.Module, attn.to_v)
        query = _split_heads(attn.to_q(hidden_states), attn.heads)
        key = _split_heads(to_key(encoder_hidden_states), attn.heads)
        value = _split_heads(to_value(encoder_hidden_states), attn.heads)
        seen = F.scaled_dot_product_attention(query, key, value)
        del query, key, value  # three tensors of the size of the input, before the projection makes another
        to_output, dropout = cast(nn.ModuleList, attn.to_out)
        return dropout(to_output(seen.transpose(1, 2).reshape(rows, tokens, -1)))


def _split_heads(tokens: Float[Tensor, "b n heads*d"], heads: int) -> Float[Tensor, "b heads n d"]:
    return tokens.unflatten(-1, (heads, -1)).transpose(1, 2)
