"""LPIPS (Zhang et al. 2018) with both backbones: papers use VGG, nerfstudio's ns-eval AlexNet. They do not compare."""

from __future__ import annotations

from importlib.metadata import version

from jaxtyping import Float
from torch import Tensor

from closeup_ns.metrics.metric import Metric, MetricOptions, MetricSpec, Provenance
from closeup_ns.metrics.weights import fill, load_state, sha256_of, torch_hub_file

_FILES = {
    "vgg": ("vgg16-397923af.pth", "https://download.pytorch.org/models/vgg16-397923af.pth"),
    "alex": ("alexnet-owt-7be5be79.pth", "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"),
}
"""torchvision's ImageNet weights of each backbone; the linear heads come with torchmetrics."""
SMALLEST_SIDE = 32
"""Pixels: the deepest layers need as many."""


def lpips_metric(spec: MetricSpec, options: MetricOptions) -> Metric:
    """LPIPS by its name, lpips_vgg or lpips_alex; 0 for identical images.

    MetricUnavailable where the backbone's weights are not here.
    """
    from torchmetrics.functional.image.lpips import _LPIPS

    backbone = "vgg" if spec.name == "lpips_vgg" else "alex"
    file_name, url = _FILES[backbone]
    path = torch_hub_file(spec, options, url, file_name)
    network = _LPIPS(pretrained=True, net=backbone, pnet_rand=True)
    state = load_state(path, spec.name)
    # torchmetrics' slices keep torchvision's layer numbers: ``slice2.3.bias`` is ``features.3.bias``.
    named = {key: f"features.{key.split('.', 1)[1]}" for key in network.net.state_dict()}
    fill(network.net, {key: state[theirs] for key, theirs in named.items() if theirs in state}, path, spec.name)
    network = network.to(options.device).eval()

    def distance(image: Float[Tensor, "H W 3"], truth: Float[Tensor, "H W 3"]) -> float:
        if min(image.shape[:2]) < SMALLEST_SIDE:
            raise ValueError(f"{spec.name}: images of at least {SMALLEST_SIDE} pixels along each side")
        pair = [(2 * picture - 1).permute(2, 0, 1)[None].to(options.device) for picture in (image, truth)]
        return float(network(*pair))

    notes = "RGB scaled to [-1, 1]"
    return spec.metric(
        Provenance(f"torchmetrics {version('torchmetrics')}", backbone, path.name, sha256_of(path), notes), distance
    )
