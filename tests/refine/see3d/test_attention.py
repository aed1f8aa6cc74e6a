"""Joined attention against a literal concatenation of every frame's keys and values, and the network as a set."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor

from closeup_ns.refine.see3d import weights
from closeup_ns.refine.see3d.pipeline import JoinedAttention, See3DPipeline
from closeup_ns.refine.see3d.unet import WEIGHTS_FILE, load_unet
from tests.refine.see3d.tiny import WIDTH as CONTEXT
from tests.refine.see3d.tiny import seeded

FRAMES, BRANCHES, TOKENS, HEADS, WIDTH = 3, 2, 5, 2, 8


def layer(context: int | None = None) -> Attention:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        attention = Attention(query_dim=WIDTH, heads=HEADS, dim_head=WIDTH // HEADS, cross_attention_dim=context)
    return attention.double()


def literal(attention: Attention, frame: Tensor, seen: Tensor) -> Tensor:
    """Softmax attention of the tokens of one frame to all of ``seen``, head by head, as in the formula."""
    query, key, value = frame @ attention.to_q.weight.T, seen @ attention.to_k.weight.T, seen @ attention.to_v.weight.T
    size = WIDTH // HEADS
    parts = []
    for head in range(HEADS):
        own = slice(head * size, (head + 1) * size)
        scores = (query[:, own] @ key[:, own].T / size**0.5).exp()
        parts.append(scores / scores.sum(1, keepdim=True) @ value[:, own])
    return torch.cat(parts, dim=1) @ attention.to_out[0].weight.T + attention.to_out[0].bias


def test_a_token_sees_every_frame_of_its_branch_and_no_other() -> None:
    attention = layer()
    hidden = torch.randn((BRANCHES * FRAMES, TOKENS, WIDTH), generator=seeded(), dtype=torch.float64)
    told = JoinedAttention()(attention, hidden, num_frames=FRAMES)
    for branch in range(BRANCHES):
        frames = hidden[branch * FRAMES : (branch + 1) * FRAMES]
        everything = torch.cat(list(frames))
        for index, frame in enumerate(frames):
            expected = literal(attention, frame, everything)
            torch.testing.assert_close(told[branch * FRAMES + index], expected, rtol=1e-10, atol=1e-12)


def test_attention_to_a_context_stays_within_each_frame() -> None:
    attention = layer(CONTEXT)
    hidden = torch.randn((FRAMES, TOKENS, WIDTH), generator=seeded(), dtype=torch.float64)
    context = torch.randn((FRAMES, 4, CONTEXT), generator=seeded(1), dtype=torch.float64)
    told = JoinedAttention()(attention, hidden, context, num_frames=FRAMES)
    for index in range(FRAMES):
        expected = literal(attention, hidden[index], context[index])
        torch.testing.assert_close(told[index], expected, rtol=1e-10, atol=1e-12)


def run(unet: torch.nn.Module, rows: Tensor, **frames: int) -> Tensor:
    context = torch.randn((1, 4, CONTEXT), generator=seeded(5)).expand(len(rows), -1, -1)
    with torch.no_grad():
        return unet(rows, 500, context, cross_attention_kwargs=frames or None, return_dict=False)[0]


def test_the_whole_network_treats_frames_as_a_set(pipeline: See3DPipeline) -> None:
    rows = torch.randn((BRANCHES * FRAMES, 9, 8, 16), generator=seeded())
    told = run(pipeline.unet, rows, num_frames=FRAMES)
    order = [2, 0, 1, 4, 5, 3]  # within each branch
    torch.testing.assert_close(run(pipeline.unet, rows[order], num_frames=FRAMES), told[order], rtol=1e-4, atol=1e-5)
    other_company = run(pipeline.unet, rows[[3, 1, 2, 0, 4, 5]], num_frames=FRAMES)
    assert (other_company[1] - told[1]).abs().max() > 1e-3


def test_one_frame_a_branch_is_the_stock_network(pipeline: See3DPipeline, tiny_weights: Path) -> None:
    rows = torch.randn((4, 9, 8, 8), generator=seeded())
    path = tiny_weights / weights.BELOW / weights.unet_folder("sparse") / WEIGHTS_FILE
    stock = run(load_unet(path, torch.float32, torch.device("cpu")), rows)
    torch.testing.assert_close(run(pipeline.unet, rows, num_frames=1), stock, rtol=1e-4, atol=1e-5)
    assert (run(pipeline.unet, rows, num_frames=4) - stock).abs().max() > 1e-3
