"""Tables to the letter, from figures that were made up."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from closeup_ns.bench.methods import table_methods, table_names
from closeup_ns.bench.output.results import load_results
from closeup_ns.bench.output.tables import Table, build_table, latex, markdown, paper_tables, scale_tables
from closeup_ns.metrics.scores import CLOSE
from tests.bench.made_up import made_up_result

ROWS = {name: set(table_methods(name)) for name in table_names()}
PSNR = [("psnr", CLOSE, "close-ups")]


def images(*values: float, metric: str = "psnr") -> dict:
    """Far, 3x and 9x images with the given figures, as many as there are."""
    names = (("far", 1.0), ("near", 3.0), ("nearer", 9.0))
    return {name: (scale, {metric: value}) for (name, scale), value in zip(names, values)}


def complete(psnr: float) -> dict:
    both = {"psnr": psnr, "ssim": psnr / 40, "lpips_vgg": 1 / psnr, "dino": psnr / 30, "metaiqa": psnr / 50}
    far = {"psnr": psnr + 5, "ssim": 0.9, "lpips_vgg": 0.1}
    return {"far": (1.0, far), "near": (3.0, both), "last": (9.0, {**both, "dino": psnr / 60})}


def the_table(made: list, wanted: list = PSNR, stages: tuple[str, ...] = ()) -> Table:
    return build_table("t", "T", load_results(made), wanted, "", stages)


def column(table: Table, index: int = 0) -> list[str]:
    return table.texts.iloc[:, index].tolist()


def test_table_1_to_the_letter(tmp_path: Path) -> None:
    made = [
        made_up_result(tmp_path, "3dgs", complete(20.0), label="3DGS", note="on our rasteriser"),
        made_up_result(tmp_path, "ours", complete(22.0)),
        made_up_result(tmp_path, "nerf", label="NeRF | old", state="failed", error="...\nno memory"),
    ]
    table = paper_tables(load_results(made), ROWS, "Commit abc1234.")[0]
    assert markdown(table) == (
        "**Table 1: close-ups, and far views apart.** Protocol demo, scene flower, seed 0. 100 training steps. "
        "Commit abc1234.\n\n"
        "| method | close-ups, PSNR ↑ | close-ups, SSIM ↑ | close-ups, LPIPS (VGG) ↓ | close-ups, DINO ↑ "
        "| close-ups, MetaIQA ↑ | far views, PSNR ↑ | far views, SSIM ↑ | far views, LPIPS (VGG) ↓ |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
        "| 3DGS [1] | 20.00 | 0.500 | 0.050 | 0.500 | 0.400 | 25.00 | **0.900** | **0.100** |\n"
        "| ours | **22.00** | **0.550** | **0.045** | **0.550** | **0.440** | **27.00** | **0.900** | **0.100** |\n"
        "| NeRF \\| old [2] | failed | failed | failed | failed | failed | failed | failed | failed |\n"
        "| images | 2 | 2 | 2 | 2 | 2 | 1 | 1 | 1 |\n"
        "\n[1] on our rasteriser\n"
        "\n[2] NeRF \\| old, scene flower, seed 0, failed: no memory\n"
    )


def test_latex_to_the_letter(tmp_path: Path) -> None:
    made = [
        made_up_result(tmp_path, "a_b", images(30, 20), note="50% & more"),
        made_up_result(tmp_path, "c", images(30, 21)),
    ]
    table = build_table("t", "T_1", load_results(made), [*PSNR, ("psnr", "far", "far views")], "bench")
    assert latex(table, "demo_1") == (
        "% needs \\usepackage{booktabs}\n"
        "\\begin{table}[t]\n\\centering\n"
        "\\caption{\\textbf{T\\_1.} Protocol demo, scene flower, seed 0. 100 training steps. bench}\n"
        "\\label{tab:demo-1}\n"
        "\\begin{tabular}{lrr}\n\\toprule\n"
        " & close-ups & far views \\\\\n"
        " & PSNR $\\uparrow$ & PSNR $\\uparrow$ \\\\\n"
        "\\midrule\n"
        "a\\_b [1] & 20.00 & \\textbf{30.00} \\\\\n"
        "c & \\textbf{21.00} & \\textbf{30.00} \\\\\n"
        "images & 1 & 1 \\\\\n"
        "\\bottomrule\n\\end{tabular}\n"
        "\\par\\smallskip\\raggedright\\footnotesize\n"
        "{[1]} 50\\% \\& more\n"
        "\\end{table}\n"
    )


@pytest.mark.parametrize(
    ("methods", "expected"),
    [
        (["base", "closeup-gs"], ["table-1", "table-2", "scales", "scales-metaiqa"]),
        (["base", "reliable"], ["table-2", "table-3", "scales", "scales-metaiqa"]),
        (["base", "select-2", "random-2"], ["table-2", "figure-5", "scales", "scales-metaiqa"]),
        (["base", "plain-2x", "no-own-kernel"], ["table-1", "table-2", "scales", "scales-metaiqa"]),
        (["somebody's"], ["table-1", "table-2", "scales", "scales-metaiqa"]),
    ],
)
def test_tables_are_those_that_the_rows_make(tmp_path: Path, methods: list[str], expected: list[str]) -> None:
    near = {name: (s, {"psnr": 20.0, "dino": 0.5, "metaiqa": 0.1}) for name, s in (("x", 3.0), ("y", 9.0))}
    results = load_results([made_up_result(tmp_path, method, near) for method in methods])
    tables = paper_tables(results, ROWS, "")
    assert [table.name for table in tables] == expected
    assert tables[-1].texts.index.tolist() == [*methods, "images"]


def test_table_2_is_the_last_scale_and_overall(tmp_path: Path) -> None:
    made = [made_up_result(tmp_path, "3dgs", complete(30.0)), made_up_result(tmp_path, "ours", complete(24.0))]
    table = next(t for t in paper_tables(load_results(made), ROWS, "") if t.name == "table-2")
    groups = ("last round (9x closer)", "overall")
    assert table.texts.columns.tolist() == [(group, name) for group in groups for name in ("DINO ↑", "MetaIQA ↑")]
    assert table.texts.iloc[0].tolist() == ["0.500", "0.600", "0.750", "0.600"]
    assert table.texts.iloc[1].tolist() == ["0.400", "0.480", "0.600", "0.480"]
    assert table.best.tolist() == [[True] * 4, [False] * 4, [False] * 4]


def test_a_metric_that_no_row_has_is_left_out_with_its_reason(tmp_path: Path) -> None:
    missing = {"dino": "no weights: put them into dino.pth"}
    wanted = [*PSNR, ("dino", CLOSE, ""), ("metaiqa", CLOSE, "")]
    table = the_table([made_up_result(tmp_path, "a", images(30, 20), missing=missing)], wanted)
    assert table.texts.columns.tolist() == [("close-ups", "PSNR ↑")] and not table.best.any()
    reasons = ["DINO is missing: no weights: put them into dino.pth", "MetaIQA is missing: it was not computed"]
    assert table.footnotes == reasons


def test_a_metric_that_one_row_lacks_is_a_dash_with_a_footnote(tmp_path: Path) -> None:
    """As a method of nerfstudio's own lacks ns-eval's keys of ours."""
    made = [
        made_up_result(tmp_path, "a", {"x": (3.0, {"psnr": 20.0, "lpips_vgg": 0.2})}),
        made_up_result(tmp_path, "b", images(9, 21), missing={"lpips_vgg": "no VGG here"}),
        made_up_result(tmp_path, "c", images(9)),
    ]
    table = the_table(made, [("lpips_vgg", CLOSE, "")])
    assert column(table) == ["0.200", "- [1]", "-", "1"] and not table.best.any()
    assert table.footnotes == ["LPIPS (VGG) is missing: no VGG here"]


def test_columns_over_fewer_images_say_so(tmp_path: Path) -> None:
    made = [
        made_up_result(tmp_path, "a", images(30, 20, 10)),
        made_up_result(tmp_path, "a", images(30, 40, 50), "trex"),
        made_up_result(tmp_path, "b", images(30, 25)),
        made_up_result(tmp_path, "b", state="failed", error="broke", scene="trex"),
    ]
    table = the_table(made)
    assert table.texts.columns.tolist() == [("close-ups", "PSNR ↑ [1]")]
    assert column(table) == ["20.00", "25.00", "1 of 4"] and table.best[:, 0].tolist() == [False, True, False]
    assert table.footnotes == [
        "over the 1 of 4 images that every row has: b lacks some (flower, trex)",
        "b, scene trex, seed 0, failed: broke",
    ]
    assert table.texts.index.tolist() == ["a", "b [2]", "images"]


def test_rows_without_a_common_image_are_shown_marked_and_not_ranked(tmp_path: Path) -> None:
    made = [made_up_result(tmp_path, "a", images(30, 20)), made_up_result(tmp_path, "b", images(30, 25), "trex")]
    table = the_table(made)
    assert column(table) == ["20.00", "25.00", "-"] and not table.best.any()
    assert "no image in common" in table.footnotes[0]


def test_seeds_have_a_spread_and_ties_share_the_bold(tmp_path: Path) -> None:
    made = [made_up_result(tmp_path, "a", images(30, v), seed=s) for s, v in enumerate((20.0, 22.0, 24.0))]
    made += [made_up_result(tmp_path, "b", images(30, 22.001)), made_up_result(tmp_path, "c", images(30, 21.99))]
    table = the_table(made)
    assert column(table) == ["22.00 ± 2.00", "22.00", "21.99", "1"]
    assert table.best[:, 0].tolist() == [True, True, False, False]
    assert table.texts[("", "seeds")].tolist() == ["3", "1", "1", ""]
    assert "then over seeds 0, 1, 2 (± their standard deviation)" in table.caption


def test_steps_that_differ_have_a_column_and_cpu_time_where_a_row_is_given_it(tmp_path: Path) -> None:
    made = [
        made_up_result(tmp_path, "closeup-gs", images(30, 20), seconds={"cpu": 60.0, "refine": 10}),
        made_up_result(tmp_path, "closeup-gs", images(30, 20), "trex", seconds={"cpu": 70.0, "refine": 15}),
        made_up_result(tmp_path, "plain-2x", images(30, 21), steps=50, seconds={"cpu": 66.0}),
        made_up_result(tmp_path, "given", images(30, 21), steps=0),
    ]
    table = the_table(made, stages=("refine",))
    assert table.texts[("", "steps")].tolist() == ["100", "50", "none", ""]
    assert table.texts[("", "training, CPU s")].tolist() == ["65.0", "66.0", "-", ""]
    assert table.texts[("", "refine, s")].tolist() == ["12.5", "-", "-", ""]
    assert "training steps" not in table.caption


@pytest.mark.parametrize("state", ["running", "failed"])
def test_experiments_that_are_not_done_say_so(tmp_path: Path, state: str) -> None:
    made = [
        made_up_result(tmp_path, "a", images(30, 20)),
        made_up_result(tmp_path, "b", state=state, error="no"),  # type: ignore[arg-type]
    ]
    table = the_table(made)
    assert column(table) == ["20.00", state, "1"]
    assert table.footnotes == [f"b, scene flower, seed 0, {'failed: no' if state == 'failed' else 'is not finished'}"]


def test_every_scale_has_columns_unless_there_are_too_many(tmp_path: Path) -> None:
    few = [made_up_result(tmp_path, "a", complete(20.0)), made_up_result(tmp_path, "b", complete(21.0))]
    tables = scale_tables(load_results(few), "")
    assert [table.name for table in tables] == ["scales", "scales-lpips-vgg-dino", "scales-metaiqa"]
    assert tables[0].texts.columns.tolist() == [(g, n) for g in ("far", "3x", "9x") for n in ("PSNR ↑", "SSIM ↑")]
    many = {f"i{n}": (1 + n / 2, {"psnr": float(n)}) for n in range(6)}
    (table,) = scale_tables(load_results([made_up_result(tmp_path, "m", many)]), "")
    assert [group for group, _ in table.texts.columns] == ["far", "close-ups"]
    assert table.texts.iloc[-1].tolist() == ["1", "5"]


def test_whatever_a_label_or_an_error_says_the_tables_hold(tmp_path: Path) -> None:
    nasty = "a\\b {c} $d$ #e_f^g ~h & 100% [i] *j* <k> --l\nm | n"
    made = [
        made_up_result(tmp_path, "x", complete(20.0), label=nasty, note=nasty),
        made_up_result(tmp_path, "y", state="failed", scene="s_1", error=nasty),
    ]
    for table in (*paper_tables(load_results(made), ROWS, nasty), the_table(made[1:])):
        check_latex(latex(table, nasty), table)
        lines = [line for line in markdown(table).splitlines() if line.startswith("|")]
        assert len(lines) == 2 + len(table.texts)
        assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {table.texts.shape[1] + 2}


def check_latex(text: str, table: Table) -> None:
    """What a compiler would stumble over: braces, environments, bare specials, rows of another number of columns."""
    bare = re.sub(r"\\[\\&%$#_{}]", lambda m: "\\\\" if m[0] == r"\\" else "", text.split("\n", 1)[1])
    depth = np.cumsum([{"{": 1, "}": -1}.get(character, 0) for character in bare])
    assert depth.min() >= 0 and depth[-1] == 0 and bare.count("$") % 2 == 0
    assert not set("#^_~%") & set(re.sub(r"\$[^$]*\$", "", bare)), "a special character is not escaped"
    body = re.search(r"toprule(.*)\\bottomrule", bare, re.DOTALL)[1]  # type: ignore[index]
    for line in body.replace(r"\midrule", "").split("\\\\")[:-1]:
        spans = sum(int(span) - 1 for span in re.findall(r"multicolumn{(\d+)}", line))
        assert line.count("&") + spans == table.texts.shape[1], line
