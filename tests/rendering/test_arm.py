"""The whole kernels compiled for 64-bit ARM: calls recorded on this machine, repeated by replay.cpp inside qemu."""

from __future__ import annotations

import platform
import struct
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from torch import Tensor

from closeup_ns.rendering import build
from closeup_ns.rendering.gather import gather_pixels
from closeup_ns.rendering.kernels import _SIGNATURES, Kernels
from closeup_ns.rendering.ssim import ssim
from tests.rendering.cross import ARM_COMPILER, ARM_RUNNER, needs_arm
from tests.rendering.scenes import make_request, on_kernels, run

REPLAY = Path(__file__).with_name("replay.cpp")
NUMBER, NULL, BYTES, WORKSPACE = range(4)


def raw(tensor: Tensor) -> bytes:
    assert tensor.is_contiguous()
    return tensor.detach().numpy().tobytes()


@dataclass
class Recorder:
    """Every call of the kernels while it is switched on: what went in, and what came out."""

    calls: list[bytes] = field(default_factory=list)
    outcomes: list[tuple[str, Tensor]] = field(default_factory=list)

    def switch_on(self, monkeypatch: pytest.MonkeyPatch) -> None:
        original = Kernels.call

        def call(kernels: Kernels, name: str, *arguments: Tensor | int | None) -> None:
            self.calls.append(self.describe(f"closeup_{name}", (*arguments, torch.get_num_threads())))
            original(kernels, name, *arguments)
            tensors = [tensor for tensor in arguments if isinstance(tensor, Tensor)]
            self.outcomes += [(f"{name} {index}", tensor.detach().clone()) for index, tensor in enumerate(tensors)]

        monkeypatch.setattr(Kernels, "call", call)

    def describe(self, name: str, arguments: tuple[Tensor | int | None, ...]) -> bytes:
        parts = [struct.pack("<q", len(name)), name.encode(), struct.pack("<q", len(arguments))]
        for letter, argument in zip(_SIGNATURES[name], arguments, strict=True):
            if isinstance(argument, Tensor):
                content = raw(argument)
                parts += [struct.pack("<qq", BYTES, len(content)), content]
            elif argument is None:
                parts.append(struct.pack("<qq", NULL, 0))
            else:
                parts.append(struct.pack("<qq", WORKSPACE if letter == "p" else NUMBER, argument))
        return b"".join(parts)


def use_every_kernel(generator: torch.Generator) -> None:
    """Render twice with all gradients, and compute what a training step computes on images."""
    for changes in (
        {"render_mode": "RGB+ED", "rasterize_mode": "antialiased"},
        {"sh_degree": 1, "opacities": torch.ones(300)},
    ):
        run(on_kernels(), make_request(300, generator, **changes), viewmat_gradient=True)
    image = torch.rand(40, 52, 3, generator=generator, requires_grad=True)
    ssim(image, torch.rand(40, 52, 3, generator=generator)).backward()
    for channels in (3, 4):
        render = torch.rand(40, 52, channels, generator=generator, requires_grad=True)
        alpha = torch.rand(40, 52, 1, generator=generator, requires_grad=True)
        gathered, gathered_alpha = gather_pixels(render, alpha, 2, torch.tensor([0.1, 0.4, 0.4, 0.1]))
        (gathered.square().sum() + gathered_alpha.square().sum()).backward()


def compile_for_arm(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The kernels and the program that calls them."""
    program = folder / "replay"
    command = [ARM_COMPILER, "-O1", "-std=c++17", "-Wall", "-Wextra", "-fopenmp", str(REPLAY), "-o", str(program)]
    compiled = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert compiled.returncode == 0 and compiled.stderr == "", compiled.stderr
    with monkeypatch.context() as patch:
        patch.setenv("CXX", ARM_COMPILER)
        patch.setattr(platform, "machine", lambda: "aarch64")
        assert build.runnable_variants()[0] == "neon"
        return build.compile_variant("neon", folder), program


@needs_arm
@pytest.mark.slow
def test_neon_kernels_compute_what_this_machines_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, generator: torch.Generator
) -> None:
    recorder = Recorder()
    with monkeypatch.context() as patch:
        recorder.switch_on(patch)
        use_every_kernel(generator)
    used = {outcome[0].split()[0] for outcome in recorder.outcomes}
    threed = {name.removeprefix("closeup_") for name in _SIGNATURES if "surfel" not in name}
    assert threed <= used
    record, results = tmp_path / "record", tmp_path / "results"
    record.write_bytes(struct.pack("<q", len(recorder.calls)) + b"".join(recorder.calls))
    library, program = compile_for_arm(tmp_path, monkeypatch)
    command = [*ARM_RUNNER, str(program), str(library), str(record), str(results)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout == "neon\n"
    content, position = results.read_bytes(), 0
    for name, ours in recorder.outcomes:
        size = ours.numel() * ours.element_size()
        theirs = torch.frombuffer(bytearray(content[position : position + size] or b"\0" * 8), dtype=ours.dtype)
        position += size
        assert_alike(name, theirs[: ours.numel()].view(ours.shape), ours)
    assert position == len(content)


def assert_alike(name: str, theirs: Tensor, ours: Tensor) -> None:
    """Equal to rounding; one value in a thousand may be on the other side of a threshold (alpha of 1/255, radius)."""
    theirs, ours = theirs.double(), ours.double()
    assert torch.equal(theirs.isnan(), ours.isnan()), name
    error = (theirs - ours).nan_to_num().abs()
    scale = ours.nan_to_num(posinf=0, neginf=0).abs()
    far = error > 1e-4 * scale + 1e-5 * scale.mean()
    assert far.sum() <= 1e-3 * far.numel(), f"{name}: {int(far.sum())} of {far.numel()}, up to {float(error.max()):.3g}"
