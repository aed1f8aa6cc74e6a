"""MetaIQA (Zhu et al. 2020), the paper's no-reference metric, from the facts of its architecture.

A ResNet-18 whose 1000 outputs feed a small head. pyiqa has one too, whose loader leaves the head random without a word
when it is given a local file with the original's names (research/papers.md, 4.3); this one loads all or nothing.

Which weights the paper used is unknown: compare figures only where their checksums are equal.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
import torchvision
import torchvision.transforms.functional as transforms
from jaxtyping import Float
from torch import Tensor, nn

from closeup_ns.metrics.dino import MEAN, STD
from closeup_ns.metrics.metric import Metric, MetricOptions, MetricSpec, Provenance
from closeup_ns.metrics.weights import fill, load_state, sha256_of, torch_hub_file

SIDE = 224
"""Pixels; the aspect is not kept, as in the original."""
_FILE = "Metaiqa_livec.pth"
_URL = f"https://huggingface.co/chaofengc/IQA-PyTorch-Weights/resolve/main/{_FILE}"
_PREFIXES = ("module.", "net_g.")
_COUNTERS = "num_batches_tracked"


class MetaIqaHead(nn.Module):
    """1000 -> 1024 -> 512 -> 1 with batch norm, PReLU and dropout, then a sigmoid."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.bn1, self.relu1 = nn.Linear(1000, 1024), nn.BatchNorm1d(1024), nn.PReLU()
        self.fc2, self.bn2, self.relu2 = nn.Linear(1024, 512), nn.BatchNorm1d(512), nn.PReLU()
        self.drop, self.fc3 = nn.Dropout(0.5), nn.Linear(512, 1)

    def forward(self, features: Float[Tensor, "B 1000"]) -> Float[Tensor, "B 1"]:
        hidden = self.drop(self.relu1(self.bn1(self.fc1(features))))
        hidden = self.drop(self.relu2(self.bn2(self.fc2(hidden))))
        return torch.sigmoid(self.fc3(hidden))


class MetaIqaNetwork(nn.Module):
    """Quality in (0, 1), higher is better, of images in [0, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.resnet_layer = torchvision.models.resnet18(weights=None)
        self.net = MetaIqaHead()

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 1"]:
        small = F.interpolate(images, (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)
        return self.net(self.resnet_layer(transforms.normalize(small, MEAN, STD)))


def load_metaiqa(path: Path, name: str = "metaiqa") -> MetaIqaNetwork:
    """A network with all of its weights from a table of tensors, in the original's names or in pyiqa's.

    Raises:
        MetricUnavailable: the file is broken (the authors' own are whole pickled modules, which are never loaded), or
            a tensor is missing, left over, or of another shape.
    """
    state = {_original_name(key): value for key, value in load_state(path, name).items()}
    network = MetaIqaNetwork()
    counters = {key: value for key, value in network.state_dict().items() if key.endswith(_COUNTERS)}
    weights = {key: value for key, value in state.items() if key not in ("mean", "std")}
    fill(network, {**counters, **weights}, path, name)
    return network


def metaiqa_metric(spec: MetricSpec, options: MetricOptions) -> Metric:
    """MetaIQA with the user's weights, or those that pyiqa publishes. MetricUnavailable where there are none."""
    cached = Path(torch.hub.get_dir()) / "pyiqa" / _FILE  # where pyiqa itself puts them
    named = spec.name in options.weights or not cached.is_file()
    path = torch_hub_file(spec, options, _URL, _FILE) if named else cached
    network = load_metaiqa(path, spec.name).to(options.device).eval()
    notes = f"resized to {SIDE}x{SIDE} with antialiasing; which weights the paper used is unknown"
    provenance = Provenance("closeup_ns.metrics.metaiqa", "ResNet-18", path.name, sha256_of(path), notes)
    return spec.metric(provenance, lambda image: float(network(image.permute(2, 0, 1)[None].to(options.device))))


def _original_name(key: str) -> str:
    for prefix in _PREFIXES:
        key = key.removeprefix(prefix)
    return "net." + key.removeprefix("head.") if key.startswith("head.") else key
