"""Tables to the letter, from figures that were made up."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from closeup_ns.bench.cell import CellResult
from closeup_ns.bench.results import load_results
from closeup_ns.bench.tables import Table, scale_tables, table_1, table_2, table_3, table_5
from closeup_ns.bench.typeset import latex, latex_text, markdown, markdown_text
from tests.bench.made_up import made_up_cell


def images(*values: float, metric: str = "psnr") -> dict:
    """Far, 3x and 9x images with the given figures, as many as there are."""
    names = (("far", 1.0), ("near", 3.0), ("nearer", 9.0))
    return {name: (scale, {metric: value}) for (name, scale), value in zip(names, values)}


def complete(psnr: float) -> dict:
    both = {"psnr": psnr, "ssim": psnr / 40, "lpips_vgg": 1 / psnr, "dino": psnr / 30, "metaiqa": psnr / 50}
    far = {"psnr": psnr + 5, "ssim": 0.9, "lpips_vgg": 0.1}
    return {"far": (1.0, far), "near": (3.0, both), "last": (9.0, {**both, "dino": psnr / 60})}


def test_table_1_to_the_letter(tmp_path: Path) -> None:
    cells = [
        made_up_cell(tmp_path, "3dgs", complete(20.0), label="3DGS", note="on our rasteriser"),
        made_up_cell(tmp_path, "ours", complete(22.0)),
        made_up_cell(tmp_path, "nerf", label="NeRF | old", state="failed", error="...\nno memory"),
    ]
    table = table_1(load_results(cells), "Commit abc1234.")
    assert markdown(table) == (
        "**Table 1: close-ups, and far views apart.** Protocol demo, scene flower, seed 0. 100 training steps. "
        "Commit abc1234.\n\n"
        "| method | close-ups, PSNR ↑ | close-ups, SSIM ↑ | close-ups, LPIPS (VGG) ↓ | close-ups, DINO ↑ "
        "| close-ups, MetaIQA ↑ | far views, PSNR ↑ | far views, SSIM ↑ | far views, LPIPS (VGG) ↓ |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
        "| 3DGS<sup>1</sup> | 20.00 | 0.500 | 0.050 | 0.500 | 0.400 | 25.00 | **0.900** | **0.100** |\n"
        "| ours | **22.00** | **0.550** | **0.045** | **0.550** | **0.440** | **27.00** | **0.900** | **0.100** |\n"
        "| NeRF \\| old<sup>2</sup> | failed | failed | failed | failed | failed | failed | failed | failed |\n"
        "| *images* | *2* | *2* | *2* | *2* | *2* | *1* | *1* | *1* |\n"
        "\n"
        "- <sup>1</sup> on our rasteriser\n"
        "- <sup>2</sup> NeRF \\| old, scene flower, seed 0, failed: no memory\n"
    )


def test_table_2_is_the_last_scale_and_overall(tmp_path: Path) -> None:
    cells = [made_up_cell(tmp_path, "3dgs", complete(30.0)), made_up_cell(tmp_path, "ours", complete(24.0))]
    table = table_2(load_results(cells), "")
    assert [(column.group, column.name) for column in table.columns] == [
        ("last round (9x closer)", "DINO"),
        ("last round (9x closer)", "MetaIQA"),
        ("overall", "DINO"),
        ("overall", "MetaIQA"),
    ]
    assert [entry.text for entry in table.rows[0].entries] == ["0.500", "0.600", "0.750", "0.600"]
    assert [entry.text for entry in table.rows[1].entries] == ["0.400", "0.480", "0.600", "0.480"]
    assert all(entry.best for entry in table.rows[0].entries)


def test_a_metric_that_no_row_has_is_left_out_with_its_reason(tmp_path: Path) -> None:
    reason = {"dino": "no weights: put them into dino.pth"}
    table = table_1(load_results([made_up_cell(tmp_path, "a", images(30, 20), missing=reason)]), "")
    assert [(column.group, column.name) for column in table.columns] == [("close-ups", "PSNR"), ("far views", "PSNR")]
    text = markdown(table)
    assert "DINO is missing: no weights: put them into dino.pth\n" in text
    assert text.count("MetaIQA is missing: it was not computed") == 1
    assert "**20.00**" not in text, "one row has nothing to be better than"


def test_a_metric_that_one_row_lacks_is_a_dash_with_a_footnote(tmp_path: Path) -> None:
    cells = [
        made_up_cell(tmp_path, "a", {"x": (3.0, {"psnr": 20.0, "lpips_vgg": 0.2})}),
        made_up_cell(tmp_path, "b", images(9, 21), missing={"lpips_vgg": "no VGG here"}),
    ]
    table = table_3(load_results(cells), "")
    entry = table.rows[1].entries[1]
    assert (entry.text, entry.mean) == ("-", None) and not table.rows[0].entries[1].best
    assert [table.footnotes[mark - 1] for mark in entry.marks] == ["LPIPS (VGG) is missing: no VGG here"]


def test_columns_over_fewer_images_say_so(tmp_path: Path) -> None:
    cells = [
        made_up_cell(tmp_path, "a", images(30, 20, 10)),
        made_up_cell(tmp_path, "a", images(30, 40, 50), "trex"),
        made_up_cell(tmp_path, "b", images(30, 25)),
        made_up_cell(tmp_path, "b", state="failed", error="broke", scene="trex"),
    ]
    table = table_1(load_results(cells), "")
    close = table.columns[0]
    assert close.images == "1 of 4"
    note = "over the 1 of 4 images that every row has: b lacks 3 (flower, trex)"
    assert [table.footnotes[mark - 1] for mark in close.marks] == [note]
    assert [row.entries[0].text for row in table.rows] == ["20.00", "25.00"]
    assert table.rows[1].entries[0].best
    assert [table.footnotes[m - 1] for m in table.rows[1].marks] == ["b, scene trex, seed 0, failed: broke"]


def test_rows_without_a_common_image_are_shown_marked_and_not_ranked(tmp_path: Path) -> None:
    cells = [made_up_cell(tmp_path, "a", images(30, 20)), made_up_cell(tmp_path, "b", images(30, 25), "trex")]
    table = table_1(load_results(cells), "")
    assert [row.entries[0].text for row in table.rows] == ["20.00", "25.00"]
    assert not any(row.entries[0].best for row in table.rows)
    assert table.columns[0].images == "-" and "no image in common" in table.footnotes[table.columns[0].marks[0] - 1]


def test_seeds_have_a_spread_and_ties_share_the_bold(tmp_path: Path) -> None:
    cells = [made_up_cell(tmp_path, "a", images(30, v), seed=s) for s, v in enumerate((20.0, 22.0, 24.0))]
    cells += [made_up_cell(tmp_path, "b", images(30, 22.001)), made_up_cell(tmp_path, "c", images(30, 21.99))]
    table = table_3(load_results(cells), "")
    assert [(row.entries[0].text, row.entries[0].best) for row in table.rows] == [
        ("22.00 ± 2.00", True),
        ("22.00", True),
        ("21.99", False),
    ]
    assert table.columns[-1].name == "seeds"
    assert [row.entries[-1].text for row in table.rows] == ["3", "1", "1"]
    assert "then over seeds 0, 1, 2 (± their standard deviation)" in table.caption


def test_steps_that_differ_have_a_column(tmp_path: Path) -> None:
    cells = [
        made_up_cell(tmp_path, "a", images(30, 20)),
        made_up_cell(tmp_path, "b", images(30, 21), steps=50),
        made_up_cell(tmp_path, "given", images(30, 21), steps=0),
    ]
    table = table_3(load_results(cells), "")
    assert [row.entries[-1].text for row in table.rows] == ["100", "50", "none"]
    assert "training steps" not in table.caption


@pytest.mark.parametrize("state", ["running", "waiting"])
def test_cells_that_are_not_finished_say_so(tmp_path: Path, state: str) -> None:
    cells = [made_up_cell(tmp_path, "a", images(30, 20)), made_up_cell(tmp_path, "b", state=state)]  # type: ignore[arg-type]
    table = table_3(load_results(cells), "")
    assert table.rows[1].entries[0].text == state
    assert [table.footnotes[m - 1] for m in table.rows[1].marks] == ["b, scene flower, seed 0, is not finished"]


def test_nothing_but_failures_is_still_a_table(tmp_path: Path) -> None:
    results = load_results([made_up_cell(tmp_path, "a", state="failed", error="no")])
    for table in (table_1(results, ""), table_2(results, ""), table_3(results, ""), *scale_tables(results, "")):
        assert all(entry.text == "failed" for entry in table.rows[0].entries)
        check_latex(latex(table))


def test_every_scale_has_columns_unless_there_are_too_many(tmp_path: Path) -> None:
    few = [made_up_cell(tmp_path, "a", complete(20.0)), made_up_cell(tmp_path, "b", complete(21.0))]
    tables = scale_tables(load_results(few), "")
    assert [table.name for table in tables] == ["scales", "scales-lpips_vgg-dino", "scales-metaiqa"]
    assert [(column.group, column.name) for column in tables[0].columns] == [
        (group, name) for group in ("far", "3x", "9x") for name in ("PSNR", "SSIM")
    ]
    many = {f"i{n}": (1 + n / 2, {"psnr": float(n)}) for n in range(6)}
    (table,) = scale_tables(load_results([made_up_cell(tmp_path, "m", many)]), "")
    assert [(column.group, column.images) for column in table.columns] == [("far", "1"), ("close-ups", "5")]


def test_table_5_has_seconds(tmp_path: Path) -> None:
    cells = [
        made_up_cell(tmp_path, "select-2", images(30, 20), seconds={"refine": 10}),
        made_up_cell(tmp_path, "select-2", images(30, 20), "trex", seconds={"refine": 15}),
        made_up_cell(tmp_path, "base", images(30, 20)),
    ]
    table = table_5(load_results(cells), "")
    assert [row.entries[-1].text for row in table.rows] == ["12.5", "-"]


def test_latex_to_the_letter(tmp_path: Path) -> None:
    cells = [
        made_up_cell(tmp_path, "a_b", images(30, 20), missing={"dino": "50% & more"}),
        made_up_cell(tmp_path, "c", images(30, 21)),
    ]
    assert latex(table_1(load_results(cells), "bench --quick"), "demo_1") == (
        "% needs \\usepackage{booktabs}\n"
        "\\begin{table}[t]\n\\centering\n"
        "\\caption{\\textbf{Table 1: close-ups, and far views apart.} Protocol demo, scene flower, seed 0. "
        "100 training steps. bench -{}-quick}\n"
        "\\label{tab:demo-1}\n"
        "\\begin{tabular}{lrr}\n\\toprule\n"
        " & \\multicolumn{1}{c}{close-ups} & \\multicolumn{1}{c}{far views} \\\\\n"
        "\\cmidrule(lr){2-2}\\cmidrule(lr){3-3}\n"
        "Method & PSNR $\\uparrow$ & PSNR $\\uparrow$ \\\\\n"
        "\\midrule\n"
        "a\\_b & 20.00 & \\textbf{30.00} \\\\\n"
        "c & \\textbf{21.00} & \\textbf{30.00} \\\\\n"
        "\\midrule\nimages & 1 & 1 \\\\\n"
        "\\bottomrule\n\\end{tabular}\n"
        "\\par\\smallskip\\raggedright\\footnotesize\n"
        "SSIM is missing: it was not computed \\\\\n"
        "LPIPS (VGG) is missing: it was not computed \\\\\n"
        "DINO is missing: 50\\% \\& more \\\\\n"
        "MetaIQA is missing: it was not computed\n"
        "\\end{table}\n"
    )


def test_latex_holds_whatever_a_label_or_an_error_says(tmp_path: Path) -> None:
    nasty = "a\\b {c} $d$ #e_f^g ~h & 100% [i] *j* <k> --l\nm | n"
    cells: list[CellResult] = [
        made_up_cell(tmp_path, "x", complete(20.0), label=nasty, note=nasty),
        made_up_cell(tmp_path, "y", complete(20.0)),
        made_up_cell(tmp_path, "y", state="failed", scene="s_1", error=nasty),
    ]
    results = load_results(cells)
    for table in (table_1(results, nasty), table_2(results, ""), *scale_tables(results, "")):
        check_latex(latex(table))
        check_markdown(markdown(table), table)


def test_special_characters() -> None:
    assert latex_text("50% of a_b ± 2 \n x--y") == r"50\% of a\_b $\pm$ 2 x-{}-y"
    assert markdown_text("a|b *c* d_e\nf") == r"a\|b \*c\* d\_e f"


def check_latex(text: str) -> None:
    """What a compiler would stumble over: braces, environments, bare specials, rows of another number of columns."""
    bare = re.sub(r"\\[\\&%$#_{}]", lambda m: "\\\\" if m[0] == r"\\" else "", text.split("\n", 1)[1])
    depth = 0
    for character in bare:
        depth += {"{": 1, "}": -1}.get(character, 0)
        assert depth >= 0
    assert depth == 0 and bare.count("$") % 2 == 0
    outside = re.sub(r"\$[^$]*\$", "", bare)
    assert not set("#^_~%") & set(outside), "a special character is not escaped"
    begun, ended = (re.findall(rf"\\{word}{{(\w+)}}", text) for word in ("begin", "end"))
    assert begun == ended[::-1]
    columns = len(re.search(r"begin{tabular}{(\w+)}", text)[1])  # type: ignore[index]
    body = re.search(r"toprule(.*)\\bottomrule", bare, re.DOTALL)[1]  # type: ignore[index]
    lines = re.sub(r"\\(midrule|cmidrule\(lr\){[^}]*})", "", body).split("\\\\")[:-1]
    assert len(lines) >= 2
    for line in lines:
        spans = sum(int(span) - 1 for span in re.findall(r"multicolumn{(\d+)}", line))
        assert line.count("&") + spans == columns - 1, line


def check_markdown(text: str, table: Table) -> None:
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) >= 2 + len(table.rows)
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {len(table.columns) + 2}
