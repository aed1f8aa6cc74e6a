"""Camera paths around the target that keep clear of the scene's surfaces: dive, orbit, pull-back."""
