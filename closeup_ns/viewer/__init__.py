"""nerfstudio's viewer, steered: targets by a click, coming closer, the rounds' cameras, overlays, the next round."""
