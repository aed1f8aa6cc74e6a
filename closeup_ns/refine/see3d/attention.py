"""Self-attention over all frames of a scene at once: what makes a stock UNet a multi-view one.

See3D's network differs from Stable Diffusion 2.1's in nothing else: no camera, no index and no time of a frame enters
it, so the frames of a scene are a set (research dossier on See3D, 2.1 and 2.2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

if TYPE_CHECKING:
    from diffusers.models.attention_processor import Attention


class JoinedAttention:
    """Attention processor for diffusers' ``Attention`` that lets a token see every frame of its own branch.

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
