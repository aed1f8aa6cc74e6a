"""What a frame of the viewer shows beside the model: overlays, the base model."""
