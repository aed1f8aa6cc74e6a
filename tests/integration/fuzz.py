"""Every file that is read, changed at random and read: ``python -m tests.integration.fuzz COUNT --seed N``.

A changed file is refused with a `CloseupError` that says where, or what comes of it is a possible capture, run or
protocol. Anything else is counted with the seed that shows it: ``--only SEED`` repeats one.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import random
import shutil
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from closeup_ns.bench.scenes.protocol import FOLDER, load_protocol
from closeup_ns.data.dataparser import CloseupDataParserConfig
from closeup_ns.data.dataset import CloseupDataset
from closeup_ns.data.eval_cameras import read_cameras
from closeup_ns.errors import CloseupError
from closeup_ns.report.write import write_report
from closeup_ns.rounds.schedule import ScheduleConfig
from closeup_ns.rounds.store.native import NativeStore
from closeup_ns.rounds.store.rounds import RoundStore
from closeup_ns.studio.checkpoints import read_checkpoint
from closeup_ns.studio.loading import open_pipeline
from closeup_ns.views.view import View
from tests.data import folders
from tests.integration.captures import write_transforms
from tests.tiny import tiny_trainer

ODD: list[Any] = [
    None, True, 0, -1, 1, 2.5, -0.0, 1e9, 1e-307, 1e308, 10**400, float("nan"), float("inf"), "", "x", "nan", "../../x",
    "/x", "a" * 300, "a\nb", "\0", "ü", [], {}, [[]], [1], [float("nan")], {"x": 1},
]  # fmt: skip
"""What stands in a changed place of a JSON or YAML file."""
NUMBERS = [0.0, -1.0, 1e-307, 1e20, 1e308, np.nan, np.inf, -np.inf]
SHORT: dict[str, Any] = {
    "pipeline__schedule__base_steps": 20,
    "pipeline__schedule__rounds": 1,
    "pipeline__schedule__round_steps": 4,
    "pipeline__datamanager__dataparser__max_image_size": 64,
    "foreign_psnr": 0.0,
}


@dataclass(frozen=True)
class Reader:
    """What reads one kind of file."""

    name: str
    folder: Path
    files: tuple[str, ...]
    """Globs below ``folder`` of the files to change."""
    read: Callable[[Path], object]
    """Reads the whole folder. AssertionError: it took what is impossible."""
    share: int = 1
    """One of so many turns is taken: slow readers read less."""


# ---- what a reader may make of its files


def possible_view(view: View) -> None:
    rotation = view.c2w[:3, :3].double()
    assert view.c2w.isfinite().all() and view.K.isfinite().all()
    assert torch.allclose(rotation @ rotation.T, torch.eye(3, dtype=torch.float64), atol=0.05), "no rotation"
    assert float(view.K[0, 0]) > 0.1 and float(view.K[1, 1]) > 0.1, "no focal length"
    assert 0 < view.width < 10**6 and 0 < view.height < 10**6, "no size"


def capture(root: Path, pixels: bool = False) -> None:
    outputs = CloseupDataParserConfig(data=root, train_on_all=True).setup().get_dataparser_outputs()
    cameras = outputs.cameras
    assert cameras.camera_to_worlds.isfinite().all() and cameras.cx.isfinite().all() and cameras.cy.isfinite().all()
    assert (cameras.fx > 0.1).all() and (cameras.fy > 0.1).all() and (cameras.fx < 1e7).all(), "no focal length"
    assert (cameras.width > 0).all() and (cameras.width < 10**6).all(), "no size"
    rotations = cameras.camera_to_worlds[:, :3, :3].double()
    eye = torch.eye(3, dtype=torch.float64).expand_as(rotations)
    assert torch.allclose(rotations @ rotations.mT, eye, atol=0.05), "no rotation"
    assert outputs.metadata.get("points3D_xyz", torch.zeros(1)).isfinite().all()
    if pixels:
        dataset = CloseupDataset(outputs)
        for index in range(len(dataset)):
            assert dataset.get_data(index, "uint8")["image"].shape[:2] == dataset.sizes[index][::-1]


def rounds(run: Path) -> None:
    """What a resumed run reads."""
    store, native = RoundStore(run / "rounds"), NativeStore(run / "rounds")
    store.check()
    schedule = store.load_schedule()
    if schedule is not None:
        assert ScheduleConfig(**asdict(schedule)).total_steps < 10**19
    for target in store.load_targets() or []:
        assert target.point.isfinite().all()
    for number in store.rounds():
        plan = store.load_plan(number)
        for saved in [] if plan is None else plan.plans:
            for view in saved.updates:
                possible_view(view)
        for name in store.views(number):
            stored = store.load_view(number, name)
            possible_view(stored.view)
            assert stored.image.isfinite().all() and stored.weight.isfinite().all()
        if native.has(number):
            for cut in native.load(number, native_names(run)):
                possible_view(cut.view)
                cut.read()


def native_names(run: Path) -> list[str]:
    return json.loads((run / "names.json").read_text())


def report(run: Path) -> None:
    write_report(run / "config.yml", run / "page.html")


def loaded(run: Path) -> None:
    _, pipeline, _ = open_pipeline(run / "config.yml")
    view = pipeline.datamanager.train_view(0)
    possible_view(view)
    rendered = pipeline.model.render_view(view)
    assert rendered.color.isfinite().all() and rendered.alpha.isfinite().all(), "a render of no numbers"


def checkpoints(run: Path) -> None:
    for path in (run / "nerfstudio_models").glob("*.ckpt"):
        state = read_checkpoint(path)
        assert state["pipeline"]["_model.gauss_params.means"].isfinite().all()


def cameras(root: Path) -> None:
    for camera in read_cameras(root / "cameras.json"):
        possible_view(camera.view)
        assert np.isfinite(camera.scale) and camera.scale > 0, "no scale"


def protocols(root: Path) -> None:
    for path in root.glob("*.yaml"):
        for scene in load_protocol(str(path)).scenes:
            assert not {"..", ""} & set(Path(scene.name).parts) and "/" not in scene.name, "a name that leads out"


# ---- changes


def change_bytes(content: bytes, chance: random.Random) -> bytes:
    broken = bytearray(content)
    for _ in range(chance.randint(1, 6)):
        reach = chance.choice((len(broken), min(len(broken), 300)))  # headers are where formats break
        at = chance.randrange(reach) if reach else 0
        kind = chance.randrange(6)
        if kind == 0:
            broken = broken[:at]
        elif kind == 1:
            broken[at:at] = bytes(chance.randrange(256) for _ in range(chance.randint(1, 20)))
        elif kind == 2:
            del broken[at : at + chance.randint(1, 50)]
        elif kind == 3 and broken:
            broken[at : at + 8] = bytes(min(8, len(broken) - at))
        elif broken:
            broken[at] = chance.randrange(256) if kind == 4 else broken[at] ^ 1 << chance.randrange(8)
    return bytes(broken)


def change_tree(tree: Any, chance: random.Random) -> Any:
    """Replace, remove or double one place at any depth."""
    if chance.random() < 0.02 or not isinstance(tree, (dict, list)) or not tree:
        return chance.choice(ODD)
    key = chance.choice(list(tree)) if isinstance(tree, dict) else chance.randrange(len(tree))
    if isinstance(tree[key], (dict, list)) and tree[key] and chance.random() < 0.8:
        tree[key] = change_tree(tree[key], chance)
    elif chance.random() < 0.2:
        del tree[key]
    elif isinstance(tree, list) and chance.random() < 0.2:
        tree.insert(key, tree[key])
    elif isinstance(tree[key], (int, float)) and chance.random() < 0.4:
        tree[key] *= chance.choice((-1, 0, 1e-9, 0.5, 1e3, 1e9))
    else:
        tree[key] = chance.choice(ODD)
    return tree


def change_text(text: str, chance: random.Random) -> str:
    lines = text.splitlines()
    row = chance.randrange(len(lines))
    words = lines[row].split(" ")
    words[chance.randrange(len(words))] = str(chance.choice([*ODD, *NUMBERS]))
    lines[row] = " ".join(words)
    return "\n".join(lines) + "\n"


def change_array(array: np.ndarray, chance: random.Random) -> np.ndarray:
    if chance.random() < 0.2:
        return array[:-1] if array.ndim else array[None]
    changed = array.copy()
    if changed.size and changed.dtype.kind == "f":
        changed.flat[chance.randrange(changed.size)] = chance.choice(NUMBERS)
    return changed.astype(chance.choice(("f4", "i4", "U4"))) if chance.random() < 0.1 else changed


def change_state(path: Path, chance: random.Random) -> None:
    state = torch.load(path, weights_only=True)
    part: Any = state
    while isinstance(part, dict) and part:
        key = chance.choice(list(part))
        value = part[key]
        if isinstance(value, torch.Tensor) and value.is_floating_point() and value.numel() and chance.random() < 0.7:
            part[key] = value.clone()
            part[key].view(-1)[chance.randrange(value.numel())] = float(np.float32(chance.choice(NUMBERS)))
            break
        if not isinstance(value, dict) or chance.random() < 0.15:
            part[key] = chance.choice(ODD)
            break
        part = value
    torch.save(state, path)


def change(path: Path, chance: random.Random) -> None:
    kind, content = path.suffix, path.read_bytes()
    if kind not in (".json", ".yaml", ".yml", ".txt", ".npy", ".npz", ".ckpt") or chance.random() < 0.4:
        path.write_bytes(change_bytes(content, chance))
    elif kind == ".json":
        path.write_text(json.dumps(change_tree(json.loads(content), chance)))
    elif kind == ".yaml":
        path.write_text(yaml.safe_dump(change_tree(yaml.safe_load(content), chance)))
    elif kind in (".yml", ".txt"):
        path.write_text(change_text(content.decode(), chance))
    elif kind == ".npy":
        np.save(path, change_array(np.load(path), chance))
    elif kind == ".npz":
        arrays = dict(np.load(path))
        name = chance.choice(list(arrays))
        arrays[name] = change_array(arrays[name], chance)
        np.savez_compressed(path, **{key: value for key, value in arrays.items() if chance.random() > 0.02})
    else:
        change_state(path, chance)


# ---- the pristine files


def input_readers(root: Path) -> list[Reader]:
    """Folders of each kind of input, written once, and what reads them."""
    folders.make_llff(root / "llff", n=2, images_bin=True)
    folders.make_transforms(root / "transforms", n=2, masks=True)
    folders.make_colmap(root / "colmap", n=2, text=True)
    (root / "cameras").mkdir()
    shutil.copy(root / "transforms/transforms.json", root / "cameras/cameras.json")
    meta = json.loads((root / "cameras/cameras.json").read_text())
    for number, frame in enumerate(meta["frames"]):
        frame |= {"name": f"c{number}", "scale": 3.0}
        frame.pop("file_path"), frame.pop("mask_path", None)
    meta["camera_model"] = "PINHOLE"
    kept = {key: value for key, value in meta.items() if key not in ("k1", "k2", "p1", "p2", "ply_file_path")}
    (root / "cameras/cameras.json").write_text(json.dumps(kept))
    (root / "protocols").mkdir()
    for path in FOLDER.glob("*.yaml"):
        shutil.copy(path, root / "protocols")
    return [
        Reader("transforms.json", root / "transforms", ("transforms.json",), capture),
        Reader("ply", root / "transforms", ("sparse_pc.ply",), capture),
        Reader("images and masks", root / "transforms", ("images/*.png", "masks/*.png"), lambda p: capture(p, True)),
        Reader("COLMAP bin", root / "llff", ("sparse/0/*.bin",), capture),
        Reader("COLMAP txt", root / "colmap", ("sparse/0/*.txt",), capture),
        Reader("poses_bounds.npy", root / "llff", ("poses_bounds.npy",), capture),
        Reader("cameras.json", root / "cameras", ("cameras.json",), cameras),
        Reader("protocols", root / "protocols", ("*.yaml",), protocols),
    ]


def run_readers(run: Path) -> list[Reader]:
    """What reads the files of a run."""
    lists = tuple(f"rounds/{part}*.json" for part in ("", "round_*/", "round_*/views/", "round_*/native/"))
    return [
        Reader("rounds' JSON", run, lists, rounds),
        Reader("rounds' pixels", run, ("rounds/round_*/exact/*.npz", "rounds/round_*/native/images/*.png"), rounds, 2),
        Reader("report", run, (*lists, "config.yml", "eval.json"), report, 4),
        Reader("checkpoints", run, ("nerfstudio_models/*.ckpt",), checkpoints, 2),
        Reader("a run to load", run, ("config.yml", "nerfstudio_models/*.ckpt"), loaded, 16),
    ]


def trained(root: Path) -> Path:
    """A run of seconds with native and with refined views."""
    write_transforms(root / "capture", finer=3)
    trainer = tiny_trainer(root / "capture", root / "out", **SHORT)
    trainer.config.save_config()
    trainer.train()
    names = trainer.pipeline.datamanager.photograph_names()
    (trainer.base_dir / "names.json").write_text(json.dumps(names))
    scores = {"psnr": 20.5, "psnr_std": None, "close_dino_3x": 0.5, "missing": {"lpips": "no weights"}}
    (trainer.base_dir / "eval.json").write_text(json.dumps({"results": scores}))
    return trainer.base_dir


# ---- the trials


def trial(reader: Reader, seed: int) -> tuple[str, str]:
    """Change one file, read, and put it back. Returns what came of it and, where that is wrong, where and why."""
    chance = random.Random(seed)
    files = sorted({path for pattern in reader.files for path in reader.folder.glob(pattern)})
    path = chance.choice(files)
    content = path.read_bytes()
    try:
        change(path, chance)
        if path.read_bytes() == content:
            return "unchanged", ""
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reader.read(reader.folder)
        return "accepted", ""
    except CloseupError as error:
        placed = path.name in str(error) or str(reader.folder) in str(error)
        return ("refused", "") if placed else ("refused without a place", f"{path.name}: {error}")
    except Exception as error:
        frame = [f for f in traceback.extract_tb(error.__traceback__) if "site-packages" not in f.filename][-1]
        place = f"{Path(frame.filename).name}:{frame.lineno}"
        kind = "impossible, and accepted" if isinstance(error, AssertionError) else "raw traceback"
        return kind, f"{path.name}: {type(error).__name__} at {place}: {' '.join(str(error).split())[:160]}"
    finally:
        path.write_bytes(content)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 30))
    parser.add_argument("--only", type=int, help="one seed, for each reader")
    options = parser.parse_args()
    counts: dict[str, Counter[str]] = {}
    wrong: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        with contextlib.redirect_stdout(io.StringIO()):
            known = [*input_readers(Path(folder)), *run_readers(trained(Path(folder)))]
            for reader in known:
                reader.read(reader.folder)  # as it was written
        seed, done = options.seed if options.only is None else options.only, 0
        while done < options.count:
            for reader in known:
                if options.only is None and seed % reader.share:
                    continue
                result, why = trial(reader, seed)
                counts.setdefault(reader.name, Counter())[result] += 1
                done += 1
                if why and why not in wrong:
                    wrong[why] = f"{result}, {reader.name}, seed {seed}: {why}"
                    print(wrong[why], flush=True)
            seed += 1
            if options.only is not None:
                break
    for name, count in counts.items():
        print(f"{name}: {dict(count)}")
    print(f"{done} files changed from seed {options.seed} on, {len(wrong)} ways of going wrong")
    return len(wrong) > 0


if __name__ == "__main__":
    sys.exit(main())
