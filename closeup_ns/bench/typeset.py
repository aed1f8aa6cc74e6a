"""A table as Markdown and as LaTeX (booktabs)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby

from closeup_ns.bench.tables import Column, Entry, Table

_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "×": r"$\times$",
    "±": r"$\pm$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "→": r"$\rightarrow$",
    "–": "--",
    "[": "{[}",
    "*": "{*}",
    "\0": "{}",
}
"""Brackets and stars would be read as arguments of a ``\\\\`` before them; ``\\0`` keeps two hyphens from joining."""
IMAGES = "images"
"""Label of the last line: how many images each mean is over."""


def markdown(table: Table) -> str:
    """The table with its caption above it and its footnotes below."""
    head = ["method", *(_markdown_head(column) for column in table.columns)]
    lines = [head, ["---", *("---:" for _ in table.columns)]]
    for row in table.rows:
        label = markdown_text(row.label) + _markdown_marks(row.marks)
        lines.append([label, *(_markdown_entry(entry) for entry in row.entries)])
    if _counts_images(table):
        lines.append([f"*{IMAGES}*", *(f"*{column.images}*" if column.images else "" for column in table.columns)])
    text = f"**{markdown_text(table.title)}.** {markdown_text(table.caption)}\n\n"
    text += "".join("| " + " | ".join(line) + " |\n" for line in lines)
    below = [f"{_markdown_marks((n,))} {markdown_text(note)}" for n, note in enumerate(table.footnotes, start=1)]
    below += [markdown_text(remark) for remark in table.remarks]
    return text + ("\n" + "".join(f"- {line}\n" for line in below) if below else "")


def latex(table: Table, label: str = "") -> str:
    """The table as a float that needs booktabs. ``label`` follows ``tab:``; the table's name by default."""
    lines = [
        "% needs \\usepackage{booktabs}",
        r"\begin{table}[t]",
        r"\centering",
        rf"\caption{{\textbf{{{latex_text(table.title)}.}} {latex_text(table.caption)}}}",
        rf"\label{{tab:{re.sub('[^A-Za-z0-9-]', '-', label or table.name)}}}",
        rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}",
        r"\toprule",
        *_latex_groups(table.columns),
        _latex_line(["Method", *(_latex_head(column) for column in table.columns)]),
        r"\midrule",
    ]
    for row in table.rows:
        entries = [_latex_entry(entry) for entry in row.entries]
        lines.append(_latex_line([latex_text(row.label) + _latex_marks(row.marks), *entries]))
    if _counts_images(table):
        lines += [r"\midrule", _latex_line([IMAGES, *(latex_text(column.images) for column in table.columns)])]
    lines += [r"\bottomrule", r"\end{tabular}"]
    below = [f"{_latex_marks((n,))} {latex_text(note)}" for n, note in enumerate(table.footnotes, start=1)]
    below += [latex_text(remark) for remark in table.remarks]
    if below:
        lines += [r"\par\smallskip\raggedright\footnotesize", " \\\\\n".join(below)]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def markdown_text(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    return re.sub(r"([\\|*_<>`\[\]])", r"\\\1", " ".join(text.split()))


def latex_text(text: str) -> str:
    """Text that LaTeX shows as it is, on one line."""
    line = re.sub("-(?=-)", "-\0", " ".join(text.split()))
    return "".join(_LATEX.get(character, character) for character in line)


def _counts_images(table: Table) -> bool:
    return any(column.images for column in table.columns)


def _markdown_head(column: Column) -> str:
    words = [markdown_text(part) for part in (column.group, column.name) if part]
    return ", ".join(words) + (f" {column.arrow}" if column.arrow else "") + _markdown_marks(column.marks)


def _markdown_entry(entry: Entry) -> str:
    text = markdown_text(entry.text)
    return (f"**{text}**" if entry.best else text) + _markdown_marks(entry.marks)


def _markdown_marks(marks: Sequence[int]) -> str:
    return f"<sup>{','.join(map(str, marks))}</sup>" if marks else ""


def _latex_groups(columns: Sequence[Column]) -> list[str]:
    """The line of headings that span columns, with the rules below them."""
    if not any(column.group for column in columns):
        return []
    cells, rules, at = [""], [], 2
    for heading, members in groupby(columns, key=lambda column: column.group):
        count = len(list(members))
        cells.append(rf"\multicolumn{{{count}}}{{c}}{{{latex_text(heading)}}}")
        rules += [rf"\cmidrule(lr){{{at}-{at + count - 1}}}"] if heading else []
        at += count
    return [_latex_line(cells), "".join(rules)]


def _latex_head(column: Column) -> str:
    return latex_text(f"{column.name} {column.arrow}".strip()) + _latex_marks(column.marks)


def _latex_entry(entry: Entry) -> str:
    text = latex_text(entry.text)
    return (rf"\textbf{{{text}}}" if entry.best else text) + _latex_marks(entry.marks)


def _latex_marks(marks: Sequence[int]) -> str:
    return f"$^{{{','.join(map(str, marks))}}}$" if marks else ""


def _latex_line(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"
