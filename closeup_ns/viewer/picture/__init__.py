"""Overlays and the base model in the viewer's frames."""
