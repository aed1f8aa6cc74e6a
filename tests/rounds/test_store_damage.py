"""Damaged files of the round store: what is said. Each case changes one file of a whole round."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from closeup_ns.errors import RoundStorageError
from closeup_ns.rounds.store.layout import RoundPass, StoredPasses
from closeup_ns.rounds.store.native import CutView, NativeStore
from closeup_ns.rounds.store.rounds import RoundStore
from tests.stored import IDENTITY, PLAN, a_view

Change = Callable[[Path], None]


def write(text: str) -> Change:
    return lambda path: path.write_text(text) and None


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    """A bit in each 32nd byte of the middle half."""
    content = bytearray(path.read_bytes())
    for position in range(len(content) // 4, 3 * len(content) // 4, 32):
        content[position] ^= 4
    path.write_bytes(content)


def put(*places: Any, value: Any) -> Change:
    """Set one value of a JSON file, found by its keys and positions."""

    def change(path: Path) -> None:
        part = whole = json.loads(path.read_text())
        for place in places[:-1]:
            part = part[place]
        part[places[-1]] = value
        path.write_text(json.dumps(whole))

    return change


def drop(name: str) -> Change:
    return lambda path: (
        path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != name})) and None
    )


def pickled(path: Path) -> None:
    np.savez(path, image=cast(Any, np.array([{"a": 1}], dtype=object)))


def narrowed(path: Path) -> None:
    """Pixels of a smaller view than the header says."""
    with np.load(path) as archive:
        arrays = dict(archive)
    with open(path, "wb") as file:
        np.savez(file, **{**arrays, "footprint": arrays["footprint"][:, 1:]})


NAN, INFINITE = float("nan"), float("inf")
MIRROR = torch.diag(torch.tensor([-1.0, 1, 1, 1])).tolist()
NATIVE = "round_1/native/transforms.json"
HEADER, PLANS, KNOWN = "round_1/views/update_00.json", "round_1/plan.json", ("known", 0, "view")
DAMAGE: list[tuple[str, Change, str]] = [
    *((name, change, "cannot be read") for name in ("targets.json", "schedule.json", "run.json", PLANS, HEADER,
      "round_1/verdict.json", "round_1/passes.json", "round_1/report.json", NATIVE)
      for change in (cut, write("[]"))),
    *(("run.json", write(text), "cannot be read") for text in ("", "\0\0", '{"a": NaN}', "1e999")),
    *((name, write("{}"), "lacks|required") for name in ("targets.json", "schedule.json", PLANS, HEADER,
      "round_1/verdict.json", "round_1/passes.json")),
    ("targets.json", write('{"targets": 1}'), "targets is 1: .*list.*Restore it"),
    ("targets.json", write('{"targets": []}'), "names no target"),
    ("targets.json", put("targets", 0, "point", value=[0.0, 1.0]), "point"),
    ("targets.json", put("targets", 0, "point", 1, value=NAN), "not a finite number"),
    ("targets.json", put("targets", 0, "distance", value=0.0), "a distance of 0"),
    ("schedule.json", put("rounds", value="many"), "rounds is 'many': .*integer.*command line"),
    ("schedule.json", put("base_steps", value=-3), "base_steps is -3: .*greater than or equal to 0"),
    ("schedule.json", put("rounds", value=10**400), "more than any number"),
    (PLANS, put("plans", value=[{}]), "RoundPlan"),
    (PLANS, put(*KNOWN, "c2w", 0, 3, value=NAN), "not a finite number.*Restore it"),
    (PLANS, put(*KNOWN, "c2w", value=MIRROR), "no rotation"),
    ("round_1/verdict.json", drop("reason"), "reason is .*: Field required"),
    ("round_1/verdict.json", put("accepted", value="yes"), "accepted is 'yes': .*boolean"),
    ("round_1/verdict.json", put("trial_steps", value=2.5), "trial_steps is 2.5"),
    ("round_1/verdict.json", put("accepted", value=[]), "accepted"),
    ("round_1/passes.json", put("passes", 0, "targets", value="t0"), "targets is 't0': .*tuple.*plan the passes again"),
    (NATIVE, put("frames", 0, "fl_x", value=0.0), "focal length of 0 pixels.*cut the native views"),
    (NATIVE, put("frames", 0, "transform_matrix", value=MIRROR), "no rotation"),
    (NATIVE, put("frames", 0, "transform_matrix", value=[[1.0], []]), "cannot be read"),
    (HEADER, put("decision", "verdict", value="splendid"), "verdict is .*refine the view again"),
    (HEADER, put("seconds", value=INFINITE), "not a finite number"),
    (HEADER, put("view", "K", 0, 0, value=0.0), "focal length"),
    (HEADER, put("pass", "memory_of", value=3), "memory_of"),
    *(("round_1/exact/update_00.npz", change, r"Delete .*update_00\.json to refine it again")
      for change in (cut, flip, write(""), write("[]"), Path.unlink, pickled, narrowed)),
]  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A round with all of its files."""
    root = tmp_path_factory.mktemp("whole")
    store = RoundStore(root)
    store.claim(IDENTITY)
    target = {"point": [0.0, 1.0, 2.0], "distance": 2.0, "reliability": 1.0, "source": "a click", "warnings": []}
    store.save_targets([target])
    store.save_schedule({"base_steps": 5, "rounds": 2, "round_steps": 3})
    store.save_plan(1, PLAN)
    store.save_passes(1, StoredPasses(3, [RoundPass(("a",))]))
    store.save_view(1, "update_00", a_view())
    pixels = np.zeros((14, 20, 3), np.uint8)
    NativeStore(root).save(1, [CutView("a.png", "a", a_view().view, pixels, pixels[..., 0] > 0, 1.0)])
    store.save_verdict(1, {"accepted": True, "reason": "good", "photographs_before": None, "trial_steps": 3})
    store.finish_round(1, {"psnr": 20.5})
    store.check()
    return root


@pytest.mark.parametrize(("name", "change", "said"), DAMAGE)
def test_a_damaged_file_is_named_with_the_reason_and_the_way_out(
    whole: Path, tmp_path: Path, name: str, change: Change, said: str
) -> None:
    root = shutil.copytree(whole, tmp_path / "rounds")
    change(root / name)
    with pytest.raises(RoundStorageError, match=said) as caught:
        RoundStore(root).check()
    assert str(root / name) in str(caught.value)


def test_a_native_view_outside_its_folder_is_not_read(whole: Path, tmp_path: Path) -> None:
    root = shutil.copytree(whole, tmp_path / "rounds")
    put("frames", 0, "file_path", value="../../../secret.png")(root / NATIVE)
    with pytest.raises(RoundStorageError, match="outside of the data folder"):
        NativeStore(root).load(1, ["a.png"])
