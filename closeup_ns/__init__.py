"""closeup-ns: Gaussian splats that hold up when the camera comes close."""
