"""The round store: exact bits, killed at every instant, full disks, other people's runs."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from closeup_ns.atomic import remove_partial
from closeup_ns.errors import DiskError, RoundStorageError
from closeup_ns.rounds.store.rounds import RoundStore, run_identity
from closeup_ns.rounds.store.view import StoredView, quantised
from closeup_ns.rounds.trials.acceptance import RoundVerdict
from closeup_ns.views.reliability import ReliablePixels
from closeup_ns.views.view import View
from tests.stored import IDENTITY, PLAN, a_view

NAMES = ["frontier_00", "update_00"]


@pytest.fixture
def store(tmp_path: Path) -> RoundStore:
    return RoundStore(tmp_path / "run" / "rounds")


def content(stored: StoredView) -> dict[str, Any]:
    """Everything in a stored view as comparable bytes and plain values."""

    def plain(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return str(value.dtype), tuple(value.shape), value.numpy().tobytes()
        if isinstance(value, (View, ReliablePixels)):
            return {name: plain(part) for name, part in vars(value).items()}
        return value

    return {name: plain(value) for name, value in vars(stored).items()}


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


# What is stored is what is trained on


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_training_sees_the_same_bits_before_and_after_a_restart(store: RoundStore, dtype: torch.dtype) -> None:
    view = a_view()
    view = dataclasses.replace(view, image=view.image.to(dtype), weight=view.weight.to(dtype))
    first = store.save_view(1, "update_00", view)
    again = RoundStore(store.root).load_view(1, "update_00")
    assert content(again) == content(first)
    assert first.image.dtype == torch.float32


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 9), st.integers(1, 9))
def test_rounding_is_small_and_happens_once_with_exact_ends(seed: int, width: int, height: int) -> None:
    view = a_view(seed, width, height)
    view.image[0, 0], view.weight[0, 0] = torch.tensor([0.0, 1.0, 0.5]), 1.0
    once = quantised(view)
    assert content(quantised(once)) == content(once)
    for before, after in ((view.image, once.image), (view.weight, once.weight), (view.render, once.render)):
        assert float((before - after).abs().max()) <= 0.5 / 65535 + 1e-7
    assert once.image[0, 0, :2].tolist() == [0, 1] and float(once.weight[0, 0]) == 1
    assert torch.equal(view.reliable.sparse, once.reliable.sparse)
    assert torch.equal(view.reliable.support, once.reliable.support)
    wild = dataclasses.replace(view, image=torch.tensor([-0.5, 1.5, torch.nan]).expand(height, width, 3))
    assert quantised(wild).image[0, 0].tolist() == [0, 1, 0]


# Killed at any instant


class Killed(BaseException):
    """Stands for SIGKILL: no handler of ours may catch it and nothing is tidied up."""


class Disk:
    """Counts what reaches the disk and fails at one of these moments."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.operations = 0
        self.fail_at: int | None = None
        self.failure: Callable[[], BaseException] = Killed
        self.dead = False
        monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # no power fails here, and thousands of them are slow
        for module, name in ((tempfile, "mkstemp"), (os, "fsync"), (os, "replace")):
            monkeypatch.setattr(module, name, self._watched(getattr(module, name)))
        unlink = Path.unlink
        # A killed process cannot remove its temporary file.
        monkeypatch.setattr(Path, "unlink", lambda path, **k: None if self.dead else unlink(path, **k))

    def _watched(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if self.operations == self.fail_at:
                self.operations += 1
                error = self.failure()
                self.dead = isinstance(error, Killed)
                raise error
            self.operations += 1
            return original(*arguments, **options)

        return call

    def revive(self) -> None:
        self.dead, self.fail_at, self.operations = False, None, 0


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def work_through_a_round(store: RoundStore, refined: list[str]) -> None:
    """What the trainer does: resume-safe, and it notes each refinement, which is what costs hours."""
    store.claim(IDENTITY)
    if store.load_plan(1) is None:
        store.save_plan(1, PLAN)
    for seed, name in enumerate(NAMES):
        if name not in store.views(1):
            refined.append(name)
            store.save_view(1, name, a_view(seed))
    store.save_after(1, "update_00", torch.zeros(4, 5, 3))
    if store.report(1) is None:
        store.finish_round(1, {"accepted": len(store.views(1))})


def test_killed_between_any_two_file_operations_nothing_is_refined_twice(tmp_path: Path, disk: Disk) -> None:
    whole = RoundStore(tmp_path / "whole")
    work_through_a_round(whole, [])
    operations = disk.operations
    assert operations > 40
    views = {name: content(whole.load_view(1, name)) for name in NAMES}
    for moment in range(operations):
        store = RoundStore(tmp_path / f"killed_{moment}")
        refined: list[str] = []
        disk.revive()
        disk.fail_at = moment
        with pytest.raises(Killed):
            work_through_a_round(store, refined)
        disk.revive()
        survived = store.views(1)
        assert all(content(store.load_view(1, name)) == views[name] for name in survived)
        again: list[str] = []
        remove_partial(store.root)  # as a resumed run does when it takes the lock
        work_through_a_round(RoundStore(store.root), again)
        assert not set(again) & set(survived)
        assert sorted(again + survived) == NAMES
        assert files_below(store.root) == files_below(whole.root)
        for name in ("round_1/transforms.json", "round_1/report.json", "round_1/plan.json", "run.json"):
            assert (store.root / name).read_bytes() == (whole.root / name).read_bytes()
        assert {name: content(store.load_view(1, name)) for name in NAMES} == views
        assert store.rounds_done() == [1]


def test_a_full_disk_at_any_moment_says_so_and_leaves_nothing_half_written(tmp_path: Path, disk: Disk) -> None:
    disk.failure = lambda: OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    RoundStore(tmp_path / "whole").save_view(1, "update_00", a_view())
    operations = disk.operations
    for moment in range(operations):
        store = RoundStore(tmp_path / f"full_{moment}")
        disk.revive()
        disk.fail_at = moment
        with pytest.raises(DiskError, match=r"No space left.*Free space") as caught:
            store.save_view(1, "update_00", a_view())
        assert str(store.root) in str(caught.value)
        if store.views(1):
            assert store.load_view(1, "update_00").seconds == a_view().seconds
            assert not [name for name in files_below(store.root) if Path(name).name.startswith(".")]
        else:
            assert files_below(store.root) == set()
            disk.revive()
            store.save_view(1, "update_00", a_view())


@pytest.mark.parametrize(
    ("owner", "writer", "number", "said"),
    [
        (Path, "write_bytes", errno.ENOSPC, r"images/update_00\.png: No space left"),
        (Path, "write_bytes", errno.EROFS, r"images/update_00\.png: Read-only file system"),
        (np, "savez_compressed", errno.ENOSPC, r"exact/update_00\.npz: No space left"),
    ],
)
def test_what_the_disk_said_is_told_whatever_the_writer_makes_of_it(
    store: RoundStore, monkeypatch: pytest.MonkeyPatch, owner: Any, writer: str, number: int, said: str
) -> None:
    """zipfile's own last words are about an open handle, and on a disk that became read-only the clean-up fails."""

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    def write(*_: Any, **__: Any) -> None:
        try:
            refuse()
        finally:
            raise ValueError("Can't close the ZIP file while there is an open writing handle on it.")

    monkeypatch.setattr(owner, writer, write)
    if number == errno.EROFS:
        monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(DiskError, match=said):
        store.save_view(1, "update_00", a_view())
    assert number == errno.EROFS or files_below(store.root) == set()


# Whose rounds these are


def test_reading_and_constructing_write_nothing(store: RoundStore) -> None:
    assert store.rounds() == store.rounds_done() == store.views(3) == []
    assert store.load_plan(1) is None
    assert store.report(1) is None
    assert not store.root.exists()


@pytest.mark.parametrize(
    ("other", "key"),
    [
        (run_identity(["a.png", "c.png"], [0.5, 1.0, -2.0], 42), "images_sha256"),
        (run_identity(["a.png", "b.png"], [0.5, 1.1, -2.0], 42), "target"),
        (run_identity(["a.png", "b.png"], [0.5, 1.0, -2.0], 43), "seed"),
    ],
)
def test_another_scenes_rounds_are_refused(store: RoundStore, other: dict[str, Any], key: str) -> None:
    store.claim(IDENTITY)
    before = files_below(store.root)
    with pytest.raises(RoundStorageError, match=rf"another run.*{key}.*resume"):
        RoundStore(store.root).claim(other)
    assert files_below(store.root) == before
    RoundStore(store.root).claim(run_identity(["a.png", "b.png"], [0.5, 1.0 + 1e-9, -2.0], 42))


def test_rounds_without_an_owner_are_refused(store: RoundStore) -> None:
    store.save_plan(1, PLAN)
    with pytest.raises(RoundStorageError, match=r"no run\.json"):
        store.claim(IDENTITY)


# What others read


def test_transforms_are_nerfstudios(store: RoundStore) -> None:
    """OpenGL c2w: y and z axes flipped, position kept; relative paths that exist; rejected views left out."""
    kept = a_view(0)
    store.save_view(2, "update_00", kept)
    store.save_view(2, "update_01", a_view(1, verdict="rejected"))
    store.save_view(2, "update_02", a_view(2, verdict="reliable_only"))
    transforms = json.loads((store.folder(2) / "transforms.json").read_text())
    frame, other = transforms["frames"]
    assert (frame["verdict"], other["verdict"]) == ("accepted", "reliable_only")
    assert frame["generated"] is True
    opengl = torch.tensor(frame["transform_matrix"])
    torch.testing.assert_close(opengl @ torch.diag(torch.tensor([1.0, -1, -1, 1])), kept.view.c2w, atol=0, rtol=0)
    assert (frame["fl_x"], frame["fl_y"]) == (float(kept.view.K[0, 0]), float(kept.view.K[1, 1]))
    assert (frame["cx"], frame["cy"]) == (float(kept.view.K[0, 2]), float(kept.view.K[1, 2]))
    for key in ("file_path", "real_mask_path", "weight_path"):
        assert not Path(frame[key]).is_absolute()
        with Image.open(store.folder(2) / frame[key]) as picture:
            assert picture.size == (frame["w"], frame["h"]) == (20, 14)
    with Image.open(store.folder(2) / frame["file_path"]) as picture:
        assert np.abs(np.asarray(picture) / 255.0 - kept.image.numpy()).max() <= 0.5 / 255 + 1e-6


def test_an_unfinished_round_is_not_done(store: RoundStore) -> None:
    for index in (1, 2, 10):
        store.save_plan(index, PLAN)
    store.finish_round(1, {"psnr": 20.5})
    (store.root / "round_x").mkdir()
    assert store.rounds() == [1, 2, 10]
    assert store.rounds_done() == [1]
    assert store.report(1) == {"psnr": 20.5}
    with pytest.raises(ValueError, match="JSON"):
        store.finish_round(2, {"psnr": float("nan")})
    assert store.rounds_done() == [1]


def test_a_verdict_comes_back_as_it_was(store: RoundStore) -> None:
    """With the types of its numbers: a resumed run reads it, and a whole number is no float."""
    verdict = RoundVerdict(True, "good", photographs_before=20.0, known_share=1.0, trial_steps=0)
    store.save_verdict(1, dataclasses.asdict(verdict))
    assert store.load_verdict(1) == verdict


def test_targets_that_are_gone_are_said_to_be_gone(store: RoundStore) -> None:
    store.claim(IDENTITY)
    assert store.load_targets() is None  # killed before they were written: found anew
    store.save_plan(1, PLAN)
    with pytest.raises(RoundStorageError, match=r"targets\.json is missing"):
        store.load_targets()
