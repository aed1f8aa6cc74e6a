"""A run's folder with made-up rounds, written by the store that training writes with."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from closeup_ns.planning.plan import KnownView, RoundPlan
from closeup_ns.rounds.reporting.contact_sheet import SheetRow, save_contact_sheet
from closeup_ns.rounds.store.layout import StoredPlan
from closeup_ns.rounds.store.rounds import RoundStore
from closeup_ns.views.view import View, look_at
from tests.stored import a_view

TARGET = [1.0, 2.0, 0.5]
CONFIG = """!!python/object:closeup_ns.studio.trainer.CloseupTrainerConfig
_target: !!python/name:closeup_ns.studio.trainer.CloseupTrainer ''
data: &id001 !!python/object/apply:pathlib.PosixPath
- /
- captures
- flower & <friends>
experiment_name: {name}
machine: !!python/object:nerfstudio.configs.base_config.MachineConfig
  device_type: cpu
  seed: 42
method_name: closeup-gs-quick
pipeline: !!python/object:closeup_ns.studio.pipeline.CloseupPipelineConfig
  datamanager: !!python/object:closeup_ns.studio.datamanager.CloseupDatamanagerConfig
    data: *id001
  refiner: !!python/object:closeup_ns.refine.refiner.RefinerConfig
    kind: auto
  schedule: !!python/object:closeup_ns.rounds.schedule.ScheduleConfig
    base_steps: 60
    round_steps: 12
    zoom: 3.0
    rounds: {rounds}
  seed: 0
timestamp: t
vis: viewer
"""


def camera(distance: float, degrees: float, rise: float = 0.3) -> View:
    """A camera ``distance`` from the target, ``degrees`` counterclockwise from +x as seen from above."""
    angle = math.radians(degrees)
    level = distance * math.sqrt(1 - rise**2)
    offset = torch.tensor([level * math.cos(angle), level * math.sin(angle), distance * rise])
    target = torch.tensor(TARGET)
    K = torch.tensor([[20.0, 0, 10], [0, 20.0, 7], [0, 0, 1]])
    return look_at(target + offset, target, torch.tensor([0.0, 0.0, 1.0]), K, 20, 14)


def a_plan(number: int) -> RoundPlan:
    radius = 4.0 / 3**number
    anchors = [KnownView(f"train/anchor_{i}.png", camera(4.0, 90.0 * i), True) for i in range(2)]
    return RoundPlan(
        round_index=number,
        zoom_total=3.0**number,
        radius=radius,
        previous_radius=3 * radius,
        target=TARGET,
        anchors=anchors,
        anchor_coverage=[0.5, 0.6],
        frontier=[camera(radius, 0.0), camera(radius, 90.0)],
        frontier_seeds=["train/anchor_0.png", "train/anchor_1.png"],
        updates=[camera(2 * radius, 30.0)],
        update_weights=[1.0],
        candidates=[],
        warnings=["<b>odd</b> & ends"],
    )


def known_views() -> list[KnownView]:
    anchors = a_plan(1).anchors
    return [*anchors, *(KnownView(f"train/plain_{i}.png", camera(4.0, 40.0 * i + 10), True) for i in range(3))]


def report(number: int) -> dict[str, Any]:
    return {
        "round": number,
        "zoom": 3.0**number,
        "verdict": verdict(),
        "gaussians": 12345,
        "kernel": {"eps2d": 0.1, "supersample": 2, "lens_blur": 0.175},
        "native_views": 7,
        "native_kernel": {"eps2d": 0.3, "supersample": 1, "lens_blur": 0.0},
        "evaluation_psnr": {"before": 20.0, "after": 20.5},
        "close_photograph_psnr": {"before": 24.0, "after": 25.5, "after, registered": 25.75, "note": "reported only"},
        "seconds": {"plan": 1.0, "refine": 2.0, "judge": 3.0, "fine_tune": 74.0},
        "peak_memory_mb": 900.0,
        "made_with": {
            "device": "rendering on the CPU with our avx2 kernels",
            "refiner": "reliable on cpu",
            "generates": False,
            "versions": {"torch": "2.11.0"},
            "command": "ns-train closeup-gs-quick",
        },
    }


def verdict() -> dict[str, Any]:
    return {
        "accepted": True,
        "reason": "helped <script>alert(1)</script>",
        "photographs_before": 21.0,
        "photographs_control": 21.5,
        "photographs_round": 21.75,
        "known_share": 0.4,
    }


def write_config(folder: Path, rounds: int = 2, name: str = "flower") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yml").write_text(CONFIG.format(rounds=rounds, name=name))
    return folder / "config.yml"


def write_round(folder: Path, number: int, over: bool = True, views: int = 2, size: tuple[int, int] = (60, 42)) -> None:
    """Round ``number``; not ``over``: its plan and views are there, its verdict and report are not."""
    store = RoundStore(folder / "rounds")
    store.save_plan(number, StoredPlan([a_plan(number)], known_views()))
    rows = []
    for index in range(views):
        kind = "frontier" if index == 0 else "update"
        stored = store.save_view(number, f"t0_{kind}_{index:02d}", a_view(index, *size))
        rows.append(SheetRow(f"t0_{kind}_{index:02d}", stored, 1 - stored.render))
    if not over:
        return
    store.save_verdict(number, verdict())
    for row in rows:
        assert row.after is not None
        store.save_after(number, row.name, row.after)
    save_contact_sheet(store.contact_sheet(number), rows, f"round {number}")
    Image.new("RGB", (90, 60), (200, 10, 10)).save(store.close_photographs(number))
    store.finish_round(number, report(number))


def write_run(folder: Path, rounds: int = 2) -> Path:
    """A finished run; returns its config.yml."""
    for number in range(1, rounds + 1):
        write_round(folder, number)
    store = RoundStore(folder / "rounds")
    target = {"point": TARGET, "distance": 4.0, "reliability": 1.0, "source": "where the optical axes meet"}
    store.save_targets([target])
    return write_config(folder, rounds)


def damage(path: Path) -> None:
    """A file that was cut off."""
    path.write_bytes(path.read_bytes()[:20])


def picture(path: Path) -> Image.Image:
    with Image.open(path) as opened:
        return opened.convert("RGB")
