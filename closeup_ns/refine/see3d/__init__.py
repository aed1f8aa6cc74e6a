"""See3D (Ma et al., 2024) from stock diffusers parts, written from the facts in its paper and weights."""
