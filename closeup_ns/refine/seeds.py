"""Seeds derived from names, so that a view that is refined once more gets the same noise."""

from __future__ import annotations

import hashlib

import torch


def derived_seed(seed: int, *names: str) -> int:
    """A seed in [0, 2^63) for the things called ``names``, in this order. The same in every process."""
    text = "\0".join([str(seed), *names])
    return int.from_bytes(hashlib.sha256(text.encode("utf8")).digest()[:8], "big") >> 1


def seeded(seed: int, *names: str) -> torch.Generator:
    """A generator on the CPU with the seed of ``names``: noise drawn there is the same for every device."""
    return torch.Generator().manual_seed(derived_seed(seed, *names))
