"""The published network executed by its published names, as the oracle of the renaming.

A latent-diffusion UNet in plain tensor functions, written from its description (research dossier, sections 2.1 and 6):
it knows nothing of diffusers. Self-attention is per frame here; how frames are joined is tested elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

GROUPS = 32


class LatentDiffusionUNet:
    """``state`` under published names; ``head_channels`` is the width of an attention head."""

    def __init__(self, state: Mapping[str, Tensor], head_channels: int) -> None:
        self.state = state
        self.head_channels = head_channels

    def __call__(self, sample: Tensor, timestep: int, context: Tensor) -> Tensor:
        """[N, 9, h, w] at one noise level, with [N, 77, c] context -> [N, 4, h, w]."""
        time = self.time_embedding(timestep, len(sample))
        hidden, stack = sample, []
        for number in range(self.count("input_blocks")):
            hidden = self.block(f"input_blocks.{number}", hidden, time, context)
            stack.append(hidden)
        hidden = self.block("middle_block", hidden, time, context)
        for number in range(self.count("output_blocks")):
            hidden = self.block(f"output_blocks.{number}", torch.cat([hidden, stack.pop()], dim=1), time, context)
        return self.conv("out.2", F.silu(self.group_norm("out.0", hidden, 1e-5)))

    def time_embedding(self, timestep: int, count: int) -> Tensor:
        half = self.state["time_embed.0.weight"].shape[1] // 2
        angles = timestep * torch.exp(-math.log(10000) * torch.arange(half) / half)
        wave = torch.cat([angles.cos(), angles.sin()]).expand(count, -1)
        return self.linear("time_embed.2", F.silu(self.linear("time_embed.0", wave)))

    def block(self, name: str, hidden: Tensor, time: Tensor, context: Tensor) -> Tensor:
        """A list of layers, each known by the tensors that it has."""
        if f"{name}.0.weight" in self.state:
            return self.conv(f"{name}.0", hidden)
        for part in range(self.count(name)):
            layer = f"{name}.{part}"
            if f"{layer}.in_layers.0.weight" in self.state:
                hidden = self.residual(layer, hidden, time)
            elif f"{layer}.proj_in.weight" in self.state:
                hidden = self.transformer(layer, hidden, context)
            elif f"{layer}.op.weight" in self.state:
                hidden = self.conv(f"{layer}.op", hidden, stride=2)
            else:
                hidden = self.conv(f"{layer}.conv", F.interpolate(hidden, scale_factor=2, mode="nearest"))
        return hidden

    def residual(self, name: str, hidden: Tensor, time: Tensor) -> Tensor:
        inner = self.conv(f"{name}.in_layers.2", F.silu(self.group_norm(f"{name}.in_layers.0", hidden, 1e-5)))
        inner = inner + self.linear(f"{name}.emb_layers.1", F.silu(time))[:, :, None, None]
        inner = self.conv(f"{name}.out_layers.3", F.silu(self.group_norm(f"{name}.out_layers.0", inner, 1e-5)))
        skip = f"{name}.skip_connection"
        return inner + (self.conv(skip, hidden) if f"{skip}.weight" in self.state else hidden)

    def transformer(self, name: str, hidden: Tensor, context: Tensor) -> Tensor:
        height, width = hidden.shape[2:]
        tokens = self.group_norm(f"{name}.norm", hidden, 1e-6).flatten(2).transpose(1, 2)
        tokens, block = self.linear(f"{name}.proj_in", tokens), f"{name}.transformer_blocks.0"
        normed = self.layer_norm(f"{block}.norm1", tokens)
        tokens = tokens + self.attention(f"{block}.attn1", normed, normed)
        tokens = tokens + self.attention(f"{block}.attn2", self.layer_norm(f"{block}.norm2", tokens), context)
        value, gate = self.linear(f"{block}.ff.net.0.proj", self.layer_norm(f"{block}.norm3", tokens)).chunk(2, dim=-1)
        tokens = tokens + self.linear(f"{block}.ff.net.2", value * F.gelu(gate))
        return hidden + self.linear(f"{name}.proj_out", tokens).transpose(1, 2).unflatten(2, (height, width))

    def attention(self, name: str, tokens: Tensor, context: Tensor) -> Tensor:
        query, key, value = (
            self.linear(f"{name}.{part}", source).unflatten(-1, (-1, self.head_channels)).transpose(1, 2)
            for part, source in (("to_q", tokens), ("to_k", context), ("to_v", context))
        )
        weights = (query @ key.transpose(-1, -2) / self.head_channels**0.5).softmax(dim=-1)
        return self.linear(f"{name}.to_out.0", (weights @ value).transpose(1, 2).flatten(2))

    def count(self, name: str) -> int:
        return 1 + max(int(key[len(name) + 1 :].split(".")[0]) for key in self.state if key.startswith(name + "."))

    def conv(self, name: str, hidden: Tensor, stride: int = 1) -> Tensor:
        weight = self.state[f"{name}.weight"]
        return F.conv2d(hidden, weight, self.state[f"{name}.bias"], stride, padding=weight.shape[-1] // 2)

    def linear(self, name: str, hidden: Tensor) -> Tensor:
        return F.linear(hidden, self.state[f"{name}.weight"], self.state.get(f"{name}.bias"))

    def group_norm(self, name: str, hidden: Tensor, eps: float) -> Tensor:
        return F.group_norm(hidden, GROUPS, self.state[f"{name}.weight"], self.state[f"{name}.bias"], eps)

    def layer_norm(self, name: str, hidden: Tensor) -> Tensor:
        weight = self.state[f"{name}.weight"]
        return F.layer_norm(hidden, weight.shape, weight, self.state[f"{name}.bias"])
