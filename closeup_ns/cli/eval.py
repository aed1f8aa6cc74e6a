"""`closeup-gs eval`: score any nerfstudio run, or any folder of renders, at given cameras."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from closeup_ns.data.eval_cameras import EvalCamera, photographs_of, read_cameras
from closeup_ns.data.names import picture_names
from closeup_ns.errors import CloseupError, DataError
from closeup_ns.evaluation.evaluate import (
    EvaluationConfig,
    References,
    evaluate,
    references_by_depth,
    references_by_point,
)
from closeup_ns.evaluation.pictures import clear_stale, render_cameras
from closeup_ns.evaluation.run import EvaluatedRun, open_run
from closeup_ns.metrics.scores import Scores, markdown, write_scores
from closeup_ns.progress import bar
from closeup_ns.provenance import provenance

NEARER = 1.2
"""A held-out photograph at least this many times nearer to the target than usual counts as a close-up."""


@dataclass
class Evaluate:
    """Score a run of any nerfstudio method, or a folder of renders, far views and close-ups apart.

    A run is rendered at --cameras, or at its own held-out photographs. A folder of renders needs --cameras and holds
    NAME.png for each. Writes scores.json, scores.csv and scores.md, and the photographs as they were compared with.
    """

    load_config: Path | None = None
    """config.yml of a run of any nerfstudio method."""
    data: Path | None = None
    """The run's capture, where it was moved since the run was trained and does not lie beside it."""
    renders: Path | None = None
    """Folder of renders made by anything: an alternative to --load-config."""
    cameras: Path | None = None
    """List of cameras: a transforms.json in the capture's frame, whose frames may say ``name``, ``scale`` (1 is far)
    and, where a photograph exists, ``file_path``."""
    photographs: Path | None = None
    """transforms.json of the training photographs; with --renders, where DINO finds its references."""
    target: tuple[float, float, float] | None = None
    """The object of interest, in the frame of --cameras; with --renders, where DINO's references are looked for."""
    output: Path = Path("outputs/eval")
    """Folder for the scores, and for the renders of a run."""
    label: str = ""
    """What tables call it; the run's method or the folder's name by default."""
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    """Metrics and their weights."""

    def main(self) -> Scores:
        """Render if need be, score, write and print."""
        if (self.load_config is None) == (self.renders is None):
            raise CloseupError("give either --load-config (a run) or --renders (a folder of pictures)")
        scores = self._score_folder() if self.load_config is None else self._score_run(self.load_config)
        write_scores(scores, self.output)
        print(f"{scores.about['label']}\n\n{markdown(scores)}")
        print(f"{self.output / 'scores.json'}, scores.csv, scores.md")
        return scores

    def _score_run(self, config: Path) -> Scores:
        run = open_run(config, self.data)
        cameras = (
            read_cameras(self.cameras) if self.cameras is not None else held_out_cameras(run, self.output / "truth")
        )
        folder = self.output / "renders"
        clear_stale(folder, config)
        with bar("rendering", len(cameras)) as advance:
            render_cameras(run.render, cameras, folder, advance)
        references = run_references(run, _closer(cameras), self.output / "photographs") if _closer(cameras) else None
        about = {"label": self.label or run.method, "method": run.method, "step": run.step, "config": str(config)}
        return self._evaluate(cameras, folder, references, about)

    def _score_folder(self) -> Scores:
        assert self.renders is not None
        if self.cameras is None:
            raise CloseupError("--renders needs --cameras: the list of cameras that the pictures were rendered from")
        cameras = read_cameras(self.cameras)
        references = None
        if self.photographs is not None and self.target is not None and _closer(cameras):
            known = photographs_of(self.photographs)
            references = references_by_point(_closer(cameras), known, torch.tensor(self.target, dtype=torch.float64))
        about = {"label": self.label or self.renders.name, "method": "", "renders": str(self.renders)}
        return self._evaluate(cameras, self.renders, references, about)

    def _evaluate(
        self, cameras: Sequence[EvalCamera], folder: Path, references: References | None, about: dict[str, Any]
    ) -> Scores:
        about |= {"cameras": str(self.cameras or "held-out photographs"), **provenance()}
        with bar("scoring", len(cameras)) as advance:
            return evaluate(cameras, folder, self.evaluation, references, about, advance)


def held_out_cameras(run: EvaluatedRun, folder: Path) -> list[EvalCamera]:
    """The run's own test photographs, their scale being how many times nearer to the target they are than usual.

    The target is where the training cameras' optical axes meet. The photographs are written into ``folder``.
    """
    from closeup_ns.planning.target import target_automatic

    held_out = run.held_out(folder)
    if not held_out:
        raise DataError(f"{run.folder} holds out no photographs; give --cameras")
    target = target_automatic([view for view, _ in run.photographs()], run.render)
    cameras = []
    for camera in held_out:
        ratio = target.distance / float((camera.view.position - target.point.to(camera.view.position)).norm())
        cameras.append(replace(camera, scale=1.0 if ratio < NEARER else round(2 * ratio) / 2))
    return cameras


def run_references(run: EvaluatedRun, closer: Sequence[EvalCamera], folder: Path) -> References:
    """The training photograph that shows most of each close-up; those that are chosen are written into ``folder``."""
    views, files = zip(*run.photographs(), strict=True)
    pictures = [folder / f"{name}.png" for name in picture_names(files)]
    references = references_by_depth(closer, list(zip(views, pictures, strict=True)), run.render)
    for picture in set(references.values()):
        run.write_photograph(pictures.index(picture), picture)
    return references


def _closer(cameras: Sequence[EvalCamera]) -> list[EvalCamera]:
    return [camera for camera in cameras if camera.scale > 1]
