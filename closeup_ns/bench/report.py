"""A bench's report: results.json, tables, plots and pictures, and a README.md that shows them all."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from closeup_ns.atomic import atomic_path, write_json
from closeup_ns.bench.cell import CellResult
from closeup_ns.bench.dive import VideoOptions, write_dive_video
from closeup_ns.bench.methods import table_methods
from closeup_ns.bench.pictures import Look, case_of, comparison_grid, looks, one_seed
from closeup_ns.bench.plots import (
    Style,
    quality_figure,
    save_plot,
    spectrum_figure,
    styles,
    views_figure,
    views_points,
)
from closeup_ns.bench.results import Result, close_scales, load_results, methods_of, metrics_of
from closeup_ns.bench.tables import Table, scale_tables, table_1, table_2, table_3, table_5
from closeup_ns.bench.typeset import latex, markdown, markdown_text
from closeup_ns.errors import CloseupError
from closeup_ns.metrics.shot import scale_label

SCHEMA = 1


def write_report(
    folder: Path, cells: Sequence[CellResult], command: str | None = None, video: VideoOptions | None = None
) -> list[Path]:
    """Write everything that ``cells`` say into ``folder``; cells may be unfinished or failed.

    Args:
        command: What made the cells, for the captions; the command line of this process by default.
        video: Also film a dive per scene, every method side by side, which loads every run.

    Returns:
        The files, README.md first. Each appears whole or not at all.

    Raises:
        CloseupError: there are no cells.
    """
    if not cells:
        raise CloseupError("there are no cells to report on")
    results = in_order(load_results(cells))
    look = styles(methods_of(results))
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]) if command is None else command
    parts, written, tables = [], [], {}
    for protocol, members in groupby(results, key=lambda result: result.cell.protocol):
        own = list(members)
        text, files, made = _protocol(folder, protocol, own, look, command)
        films, problems = ([], []) if video is None else _videos(folder / "pictures", protocol, own, video)
        text += "".join(f"\n[{path.stem}](<{path.relative_to(folder).as_posix()}>)\n" for path in films)
        text += "".join(f"\n- {markdown_text(problem)}\n" for problem in problems)
        parts.append(text)
        written += films
        written += files
        tables[protocol] = [asdict(table) for table in made]
    write_json(
        folder / "results.json",
        {"schema": SCHEMA, "command": command, "cells": [_cell(r, folder) for r in results], "tables": tables},
    )
    with atomic_path(folder / "README.md") as temporary:
        temporary.write_text("# Results\n\n" + "\n".join(parts), encoding="utf8")
    return [folder / "README.md", folder / "results.json", *written]


def in_order(results: Sequence[Result]) -> list[Result]:
    """By protocol, then rows in the order in which they are given; scenes and seeds in their own."""
    order = methods_of(results)
    return sorted(results, key=lambda r: (r.cell.protocol, order.index(r.cell.method), r.cell.scene, r.cell.seed))


def paper_tables(results: Sequence[Result], about: str) -> tuple[list[Table], list[str]]:
    """The tables that these rows make, and why others are not there."""
    main = {*table_methods("1"), *table_methods("default")}
    rows2, rows3, rows5 = ({*table_methods(table)} for table in ("2", "3", "fig5"))
    methods = set(methods_of(results))
    refiners, views = _only(results, rows3), _only(results, rows5)
    plain = _without(results, (rows2 | rows3 | rows5) - main)
    progressive = _without(results, (rows3 | rows5) - main - rows2)
    tables, absent = [], []
    if plain and not (len(methods_of(plain)) == 1 and len(methods) > 1):
        tables.append(table_1(plain, about))
    if len(close_scales(results)) > 1 or methods & (rows2 - main):
        if {"dino", "metaiqa"} & set(metrics_of(progressive)):
            tables.append(table_2(progressive, about))
        else:
            absent.append(f"Table 2 is not here: {_reasons(progressive, ('dino', 'metaiqa'))}")
    if methods & (rows3 - main):
        tables.append(table_3(refiners, about))
    if methods & (rows5 - main):
        tables.append(table_5(views, about))
    return [*tables, *scale_tables(results, about)], absent


def _only(results: Sequence[Result], methods: set[str]) -> list[Result]:
    return [result for result in results if result.cell.method in methods]


def _without(results: Sequence[Result], methods: set[str]) -> list[Result]:
    return [result for result in results if result.cell.method not in methods]


def _reasons(results: Sequence[Result], metrics: Sequence[str]) -> str:
    found = {r.scores.missing[m]: None for m in metrics for r in results if r.scores and m in r.scores.missing}
    return "; ".join(found) or "its metrics were not computed"


def _protocol(
    folder: Path, protocol: str, results: Sequence[Result], look: dict[str, Style], command: str
) -> tuple[str, list[Path], list[Table]]:
    """One protocol's section of README.md, the files that it shows, and its tables."""
    commits = sorted({str(r.scores.about.get("commit") or "unknown") for r in results if r.scores}) or ["unknown"]
    about = f"Best in bold. Commit {', '.join(commits)}; `{command}`; each row's config and command: results.json."
    tables, absent = paper_tables(results, about.replace("`", ""))
    lines, written = [f"## Protocol {protocol}\n"], []
    for table in tables:
        stem = folder / "tables" / f"{protocol}-{table.name}"
        for path, text in (
            (stem.with_name(f"{stem.name}.md"), markdown(table)),
            (stem.with_name(f"{stem.name}.tex"), latex(table, stem.name)),
        ):
            with atomic_path(path) as temporary:
                temporary.write_text(text, encoding="utf8")
            written.append(path)
        lines.append(markdown(table))
    lines += [f"{markdown_text(reason)}\n" for reason in absent]
    plots = _plots(folder / "plots", protocol, results, look)
    shown, problems = _pictures(folder, protocol, results, look)
    lines += [_embed(path, folder) for path in (*plots, *shown) if path.suffix == ".png"]
    lines += [f"- {markdown_text(problem)}\n" for problem in problems]
    lines += [_notes(results), _cells_table(results)]
    return "\n".join(lines), [*written, *plots, *shown], tables


def _plots(folder: Path, protocol: str, results: Sequence[Result], look: dict[str, Style]) -> list[Path]:
    written = []
    if metrics_of(results):
        written += save_plot(quality_figure(results, look), folder / f"{protocol}-zoom")
    if views_points(results):
        written += save_plot(views_figure(results), folder / f"{protocol}-views")
    return written


def _pictures(
    folder: Path, protocol: str, results: Sequence[Result], look: dict[str, Style]
) -> tuple[list[Path], list[str]]:
    """A grid per scene, and the spectra at its first close-up. A damaged picture costs its own place only."""
    written, problems = [], []
    for scene in sorted({result.cell.scene for result in results}):
        own = [result for result in results if result.cell.scene == scene]
        chosen = one_seed(own)
        if not chosen:
            continue
        rows, failed = looks(own, case_of(next(iter(chosen.values())).cell))
        problems += [f"scene {scene}: {problem}" for problem in failed]
        if not rows:
            continue
        labels = {method: result.cell.label for method, result in chosen.items()}
        first = next((row for row in rows if row.scale > 1), rows[0])  # further in, everything is equally blurred
        path = folder / "pictures" / f"{protocol}-{scene}.png"
        with atomic_path(path) as temporary:
            comparison_grid(rows, labels).save(temporary)
        written += [path, *_spectra(folder / "plots" / f"{protocol}-{scene}-spectrum", first, look, labels, scene)]
    return written, problems


def _spectra(stem: Path, row: Look, look: dict[str, Style], labels: dict[str, str], scene: str) -> list[Path]:
    title = f"{scene}, {row.name}, {scale_label(row.scale)}"
    renders = {method: torch.from_numpy(picture) for method, picture in row.renders.items()}
    truth = None if row.truth is None else torch.from_numpy(row.truth)
    return save_plot(spectrum_figure(renders, truth, look, labels, title), stem)


def _videos(
    folder: Path, protocol: str, results: Sequence[Result], options: VideoOptions
) -> tuple[list[Path], list[str]]:
    """A dive per scene, and what there is to say about it."""
    written, problems = [], []
    for scene in sorted({result.cell.scene for result in results}):
        own = [result for result in results if result.cell.scene == scene]
        path, case = folder / f"{protocol}-{scene}-dive.mp4", case_of(own[0].cell)
        try:
            if case is None:
                raise CloseupError("its case is gone")
            problems += [f"dive at {scene}: {warning}" for warning in write_dive_video(path, own, case, options)]
            written.append(path)
        except CloseupError as problem:
            problems.append(f"no dive at {scene}: {problem}")
    return written, problems


def _embed(path: Path, folder: Path) -> str:
    relative = path.relative_to(folder).as_posix()
    return f"![{path.stem}](<{relative}>)\n"


def _notes(results: Sequence[Result]) -> str:
    """What preparing the scenes had to say."""
    notes: dict[str, None] = {}
    for result in results:
        for note in result.scores.about.get("case_notes", []) if result.scores else []:
            notes[f"- {result.cell.scene}: {markdown_text(str(note))}"] = None
    return "\n".join(notes) + ("\n" if notes else "")


def _cells_table(results: Sequence[Result]) -> str:
    """Every cell with its state, time and config."""
    lines = ["| cell | state | steps | training, s | config |", "| --- | --- | ---: | ---: | --- |"]
    for result in results:
        cell, about = result.cell, result.scores.about if result.scores else {}
        name = f"{cell.scene}, {cell.label}, seed {cell.seed}"
        state = cell.state if result.scores or cell.state != "done" else "failed"
        if state == "failed":
            state = f"failed: {result.problem}"
        seconds = f"{cell.seconds['train']:.0f}" if "train" in cell.seconds else "-"
        columns = (name, state, str(cell.steps or "-"), seconds, str(about.get("config") or "-"))
        lines.append("| " + " | ".join(markdown_text(column) for column in columns) + " |")
    return "### Cells\n\n" + "\n".join(lines) + "\n"


def _cell(result: Result, folder: Path) -> dict[str, Any]:
    """A cell for results.json."""
    content = {name: value for name, value in vars(result.cell).items() if name != "folder"}
    root, own = folder.resolve(), result.cell.folder.resolve()
    content["folder"] = own.relative_to(root).as_posix() if own.is_relative_to(root) else own.name
    if result.scores is None:
        return {**content, "problem": result.problem}
    scores = result.scores.to_dict()
    return {**content, **{key: scores[key] for key in ("about", "metrics", "missing", "means", "rows")}}
