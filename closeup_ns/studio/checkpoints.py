"""Checkpoints and data of a run: where they are, and whether they can be trusted."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.utils.rich_utils import CONSOLE
from rich.markup import escape
from torch import Tensor

from closeup_ns.errors import CheckpointError, CloseupError, PhotographsGone
from closeup_ns.planning.targets import TargetConfig
from closeup_ns.reading import reading
from closeup_ns.rounds.store.rounds import RoundStore

CHECKPOINT = re.compile(r"step-([0-9]+)\.ckpt")


def checkpoint_steps(folder: Path) -> list[int]:
    """Steps of the checkpoints in a run's nerfstudio_models, in order.

    Raises:
        CheckpointError: there is none.
    """
    names = (CHECKPOINT.fullmatch(path.name) for path in folder.glob("step-*.ckpt"))
    steps = sorted(int(match[1]) for match in names if match)
    if not steps:
        raise CheckpointError(
            f"no checkpoint (step-*.ckpt) in {folder}, the nerfstudio_models folder of a run: the run never saved one, "
            "or it was moved or removed"
        )
    return steps


def find_checkpoint(folder: Path, step: int | None = None) -> Path:
    """The checkpoint of ``step``, or the latest.

    Raises:
        CheckpointError: it is not there.
    """
    steps = checkpoint_steps(folder)
    if step is not None and step not in steps:
        raise CheckpointError(
            f"{folder / f'step-{step:09d}.ckpt'} does not exist; there are the steps {', '.join(map(str, steps))}"
        )
    return folder / f"step-{steps[-1] if step is None else step:09d}.ckpt"


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a nerfstudio checkpoint, on the CPU.

    Raises:
        CheckpointError: it is not there, cut short, not a checkpoint, of another method, or holds values that are no
            numbers.
    """
    if not path.exists():
        raise CheckpointError(f"checkpoint {path} does not exist")
    remedy = "It is cut short or not a checkpoint: load another one, by --load-checkpoint or --load-step"
    with reading(path, remedy, CheckpointError):
        state = torch.load(path, map_location="cpu", weights_only=True)
        for part, kind in (("pipeline", dict), ("optimizers", dict), ("step", int)):
            if not isinstance(state[part], kind):
                raise TypeError(f"its {part} is {state[part]!r:.40}")
        # A dict is a module's extra state: the datamanager's holds the native views' poses.
        foreign = [name for name, value in state["pipeline"].items() if not isinstance(value, (Tensor, dict))]
        if foreign:
            raise TypeError(f"{foreign[0]} in its pipeline is no tensor")
        for name, tensor in _tensors({"pipeline": state["pipeline"], "optimizers": state["optimizers"]}):
            # A pixel kernel may hold an infinity, a Gaussian or its moments may not.
            bad = tensor.isnan() if "gauss_params" not in name and "optimizers" not in name else ~tensor.isfinite()
            if bad.any():
                raise ValueError(f"{int(bad.sum())} values of {name} are no finite numbers")
    if "_model.gauss_params.means" not in state["pipeline"]:
        raise CheckpointError(f"{path} holds no Gaussians: it is not a splatfacto or closeup-gs checkpoint")
    return state


def _tensors(content: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Floating-point tensors at any depth, with where they are."""
    if isinstance(content, Tensor) and content.is_floating_point():
        yield name, content
    elif isinstance(content, Mapping):
        for key, value in content.items():
            yield from _tensors(value, f"{name}.{key}".lstrip("."))


def locate(config: TrainerConfig, config_path: Path, data: Path | None = None) -> None:
    """Make a run's config name the checkpoints beside its config.yml, and its photographs where they are now.

    Those are ``data`` if given, else where the run was trained on them; else at the same place relative to the run, or
    beside it, where both were moved. Its targets become those that its rounds went to.

    Raises:
        CheckpointError: there is no checkpoint or it is damaged.
        PhotographsGone: there are no photographs.
    """
    if config.__dict__.get("loaded_from") == config_path:
        return
    folder, trained_in = config_path.parent.resolve(), config.get_base_dir().absolute()
    config.relative_model_dir = folder / config.relative_model_dir.name
    read_checkpoint(find_checkpoint(config.relative_model_dir, config.load_step))
    manager: Any = config.pipeline.datamanager
    recorded = Path(manager.data or manager.dataparser.data)
    moved = folder / os.path.relpath(recorded.absolute(), trained_in)
    places = [data] if data is not None else [recorded, moved, folder / recorded.name, folder.parent / recorded.name]
    found = next((place for place in places if place.exists()), None)
    if found is None:
        raise PhotographsGone(
            f"the photographs of {config_path} are not at {' nor at '.join(dict.fromkeys(map(str, places)))}. Give a "
            "closeup-gs command --data FOLDER; for nerfstudio's own, put or link them at the last of these places"
        )
    manager.data = manager.dataparser.data = found
    _keep_targets(config.pipeline, folder)
    config.__dict__["loaded_from"] = config_path


def _keep_targets(pipeline: Any, folder: Path) -> None:
    """Let a run be judged at the targets that it was trained for: a finished model would choose others by itself."""
    if not isinstance(getattr(pipeline, "target", None), TargetConfig):
        return
    try:
        saved = RoundStore(folder / "rounds").load_targets()
    except CloseupError as error:
        CONSOLE.print(f"[yellow]The run's targets are found anew: {escape(str(error))}", soft_wrap=True)
        return
    if saved:
        pipeline.target = TargetConfig(xyz=tuple(tuple(item.point.tolist()) for item in saved))
