"""A bench's report: results.json, tables, plots and pictures, and a README.md that shows them all."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from closeup_ns.atomic import atomic_path, write_json
from closeup_ns.bench.experiment import ExperimentResult
from closeup_ns.bench.methods import table_methods, table_names
from closeup_ns.bench.output.pictures import comparison_grid, dive_picture, looks, one_seed, scene_of
from closeup_ns.bench.output.plots import Style, quality_figure, save_figure, styles, views_figure, views_table
from closeup_ns.bench.output.results import Result, label_of, load_results, methods_of, metrics_of
from closeup_ns.bench.output.tables import Table, latex, markdown, markdown_text, paper_tables
from closeup_ns.errors import CloseupError


def write_report(folder: Path, experiments: Sequence[ExperimentResult], command: str | None = None) -> list[Path]:
    """Write everything that ``experiments`` say into ``folder``; experiments may be unfinished or failed.

    Args:
        experiments: At least one; of each protocol in the order of the tables' rows.
        command: What made the experiments, for the captions; the command line of this process by default.

    Returns:
        The files, README.md first. Each appears whole or not at all.
    """
    results = sorted(load_results(experiments), key=lambda result: result.experiment.protocol)
    look = styles(methods_of(results))
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]) if command is None else command
    parts, written = ["# Results"], []
    for protocol, members in groupby(results, key=lambda result: result.experiment.protocol):
        own, problems = list(members), []
        about = f"Best in bold. {_commits(own)}{command}; each row's config and command: results.json."
        made = paper_tables(own, {name: set(table_methods(name)) for name in table_names()}, about)
        files = [path for table in made for path in _write_table(folder / "tables", protocol, table)]
        files += _plots(folder / "plots", protocol, own, look)
        for scene in sorted({result.experiment.scene for result in own}):
            try:
                shown, failed = _pictures(folder, [r for r in own if r.experiment.scene == scene])
                files += shown
            except (CloseupError, OSError) as problem:  # a damaged file costs its own place only, and is said
                failed = [str(problem)]
            problems += [f"scene {scene}: {problem}" for problem in failed]
        texts = [f"## {protocol}", *(markdown(table) for table in made), *(_embed(path, folder) for path in files)]
        remarks = [f"- {markdown_text(line)}" for line in dict.fromkeys([*problems, *_scene_notes(own)])]
        parts += [text for text in [*texts, "\n".join(remarks), _experiments_table(own)] if text]
        written += files
    write_json(folder / "results.json", {"command": command, "experiments": [_experiment(r, folder) for r in results]})
    with atomic_path(folder / "README.md") as temporary:
        temporary.write_text("\n\n".join(part.rstrip() for part in parts) + "\n", encoding="utf8")
    return [folder / "README.md", folder / "results.json", *written]


def _commits(results: Sequence[Result]) -> str:
    commits = {str(r.scores.about.get("commit", "")) for r in results if r.scores} - {""}
    return f"Commit {', '.join(sorted(commits))}. " if commits else ""


def _write_table(folder: Path, protocol: str, table: Table) -> list[Path]:
    stem = f"{protocol}-{table.name}"
    written = []
    for suffix, text in ((".md", markdown(table)), (".tex", latex(table, stem))):
        with atomic_path(folder / f"{stem}{suffix}") as temporary:
            temporary.write_text(text, encoding="utf8")
        written.append(folder / f"{stem}{suffix}")
    return written


def _plots(folder: Path, protocol: str, results: Sequence[Result], look: dict[str, Style]) -> list[Path]:
    written = []
    if metrics_of(results):
        written += save_figure(quality_figure(results, look), folder / f"{protocol}-zoom")
    if len(views_table(results)):
        written += save_figure(views_figure(results), folder / f"{protocol}-views")
    return written


def _pictures(folder: Path, results: Sequence[Result]) -> tuple[list[Path], list[str]]:
    """A grid of one scene, and the dive as one picture; and what went wrong."""
    chosen = one_seed(results)
    if not chosen:
        return [], []
    first = results[0].experiment
    stem, prepared = f"{first.protocol}-{first.scene}", scene_of(first, folder)
    rows, failed = looks(results, prepared)
    if not rows:
        return [], failed
    labels = {method: label_of(results, method) for method in chosen}
    written = save_figure(comparison_grid(rows, labels), folder / "pictures" / stem, (".png",))
    dive = dive_picture(rows, labels, prepared)
    if dive is not None:
        written += save_figure(dive, folder / "pictures" / f"{stem}-dive", (".png",))
    return written, failed


def _embed(path: Path, folder: Path) -> str:
    """A picture; tables stand in the page already, and drawings as PNG beside their SVG."""
    return f"![{path.stem}](<{path.relative_to(folder).as_posix()}>)" if path.suffix == ".png" else ""


def _scene_notes(results: Sequence[Result]) -> list[str]:
    """What preparing the scenes had to say."""
    return [
        f"{r.experiment.scene}: {note}" for r in results if r.scores for note in r.scores.about.get("scene_notes", [])
    ]


def _experiments_table(results: Sequence[Result]) -> str:
    """Every experiment with its state, time and config."""
    lines = ["| experiment | state | steps | training, s | config |", "| --- | --- | ---: | ---: | --- |"]
    for result in results:
        experiment, about = result.experiment, result.scores.about if result.scores else {}
        done = experiment.state == "done" and result.scores is not None
        state = experiment.state if done or experiment.state == "running" else f"failed: {result.problem}"
        seconds = f"{experiment.seconds['train']:.0f}" if "train" in experiment.seconds else "-"
        name = f"{experiment.scene}, {experiment.label}, seed {experiment.seed}"
        columns = (name, state, str(experiment.steps or "-"), seconds, str(about.get("config") or "-"))
        lines.append("| " + " | ".join(markdown_text(column) for column in columns) + " |")
    return "### Experiments\n\n" + "\n".join(lines)


def _experiment(result: Result, folder: Path) -> dict[str, Any]:
    """An experiment for results.json."""
    content = {name: value for name, value in vars(result.experiment).items() if name != "folder"}
    content["folder"] = result.experiment.folder.relative_to(folder).as_posix()
    if result.scores is None:
        return {**content, "problem": result.problem}
    scores = result.scores.to_dict()
    return {**content, **{key: scores[key] for key in ("about", "metrics", "missing", "means", "rows")}}
