"""The demo's scene: a still life, its camera and its photographs."""
