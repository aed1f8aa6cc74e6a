"""See3D's two stages as its authors run them (research dossier on See3D, 2.5 to 2.8)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """The settings of one stage."""

    name: str
    """As it is called on the command line and in the report."""
    side: int
    """Of the squares that the network was trained on, pixels: it is shown nothing else."""
    overlap: int
    """Pixels that neighbouring squares of a larger view share at least, and over which they are blended."""
    frames: int
    """Most pictures of a pass, whatever the options allow."""
    steps: int
    """Denoising steps asked for; the published schedule takes a few more."""
    guidance: float
    """g of (1 + g) conditional - g unconditional: 2 is a scale of 3 elsewhere."""
    mixes_noise: bool
    """Whether the visual condition is the noised warp mixed with the noisy latent, or the clean picture."""


BASE = Stage("see3d", side=512, overlap=64, frames=64, steps=50, guidance=2.0, mixes_noise=True)
"""Refines renders; its networks are ``sparse``, and ``single`` where there is one reference."""
SR = Stage("see3d-sr", side=1024, overlap=128, frames=8, steps=30, guidance=1.0, mixes_noise=False)
"""Sharpens refined pictures. At 1024 pixels each of a pass' pictures costs four times as much: eight of them take the
memory that eighteen take before."""
