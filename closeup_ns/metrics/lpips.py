"""LPIPS (Zhang et al. 2018) with both backbones: papers use VGG, nerfstudio's ns-eval AlexNet. They do not compare."""

from __future__ import annotations

from importlib.metadata import version
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from closeup_ns.metrics.metric import MetricOptions, MetricSpec, Needs, Provenance
from closeup_ns.metrics.weights import fill, load_state, sha256_of, torch_hub_file

_FILES = {
    "vgg": ("vgg16-397923af.pth", "https://download.pytorch.org/models/vgg16-397923af.pth"),
    "alex": ("alexnet-owt-7be5be79.pth", "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"),
}
"""torchvision's ImageNet weights of each backbone; the linear heads come with torchmetrics."""
SMALLEST_SIDE = 32
"""Pixels: the deepest layers need as many."""


class Lpips:
    """Learned perceptual distance; 0 for identical images."""

    higher_is_better = False

    def __init__(self, name: str, backbone: Literal["vgg", "alex"], options: MetricOptions) -> None:
        from torchmetrics.functional.image.lpips import _LPIPS

        self.name = name
        self.needs: Needs = "truth"
        file_name, url = _FILES[backbone]
        path = torch_hub_file(name, url, file_name, options.weights.get(name), options.allow_download)
        network = _LPIPS(pretrained=True, net=backbone, pnet_rand=True)
        state = load_state(path, name)
        # torchmetrics' slices keep torchvision's layer numbers: ``slice2.3.bias`` is ``features.3.bias``.
        named = {key: f"features.{key.split('.', 1)[1]}" for key in network.net.state_dict()}
        fill(network.net, {key: state[theirs] for key, theirs in named.items() if theirs in state}, path, name)
        self._network = network.to(options.device).eval()
        self.provenance = Provenance(
            f"torchmetrics {version('torchmetrics')}", backbone, path.name, sha256_of(path), "RGB scaled to [-1, 1]"
        )

    @torch.no_grad()
    def __call__(self, image: Float[Tensor, "H W 3"], against: Float[Tensor, "H W 3"] | None) -> float:
        if against is None or against.shape != image.shape or min(image.shape[:2]) < SMALLEST_SIDE:
            raise ValueError(f"{self.name}: two images of one shape, at least {SMALLEST_SIDE} pixels along each side")
        device = next(self._network.buffers()).device
        pair = [(2 * picture - 1).permute(2, 0, 1)[None].to(device) for picture in (image, against)]
        return float(self._network(*pair))


def lpips_metric(spec: MetricSpec, options: MetricOptions) -> Lpips:
    """LPIPS by its name, lpips_vgg or lpips_alex. MetricUnavailable where the backbone's weights are not here."""
    return Lpips(spec.name, "vgg" if spec.name == "lpips_vgg" else "alex", options)
