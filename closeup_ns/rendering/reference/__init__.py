"""Both renderers in plain PyTorch: slow, and the oracle of the kernels."""
