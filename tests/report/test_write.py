"""The page of a made-up run: what it says, that it stands alone, and what it says about broken files."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from closeup_ns.cli.main import main
from closeup_ns.errors import CheckpointError, CloseupError, DataError
from closeup_ns.report.write import default_output, write_report
from closeup_ns.rounds.store.rounds import RoundStore
from tests.report.made_up import damage, write_config, write_round, write_run
from tests.stored import a_view

VOID = {"img", "input", "meta"}


class Page(HTMLParser):
    """Elements and words of a page; every element that was opened must be closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def page_of(config: Path) -> Page:
    return Page(write_report(config).read_text(encoding="utf8"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("run")).parent


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "copied")
    return tmp_path / "copied"


def test_everything_that_the_issue_names_is_on_the_page(finished: Path) -> None:
    page = page_of(finished / "config.yml")
    assert default_output(finished / "config.yml") == finished / "rounds/report.html"
    for said in (
        "closeup-gs: flower", "closeup-gs-quick", "/captures/flower & <friends>", "where the optical axes meet",
        "torch 2.11.0", "rendering on the CPU with our avx2 kernels", "reliable on cpu", "ns-train closeup-gs-quick",
        "variance 0.200 px², 2 x supersampled", "12,345", "20.00 → 20.50 dB ( +0.50 )", "21.50 → 21.75 dB ( +0.25 )",
        "7 native views", "24.00 → 25.50 dB ( +1.50 ) (25.75 dB)", "variance 0.300 px², 1 x supersampled",
        "registering native views",
        "1 (3x)", "2 (9x)", "1 min 14 s", "900 MB", "photographed", "mark invented pixels",
        "see3d (invents)", "see3d, pass 2 of 7 pictures (footprint_px 3, model none)", "1,234 MB (GPU)",
        "train/frame_00012.png, t0_update_05",
    ):  # fmt: skip
        assert said in page.text, said
    assert "Still training" not in page.text
    assert len(page.all("svg")) == 2 * 5  # a map and four keys per round
    assert len([i for i in page.all("input") if i.get("type") == "range"]) == 2 * 2
    assert all(image.get("alt") for image in page.all("img"))


def test_it_refers_to_nothing_outside_itself(finished: Path) -> None:
    """No element loads anything, and the browser is told to refuse it if one did."""
    text = write_report(finished / "config.yml").read_text(encoding="utf8")
    page = Page(text)
    assert {name for name, _ in page.elements} & {
        "link",
        "iframe",
        "object",
        "embed",
        "base",
        "video",
        "audio",
    } == set()
    for _, attributes in page.elements:
        for name in ("src", "href", "srcset", "poster", "action", "xlink:href"):
            value = attributes.get(name)
            assert value is None or value.startswith("data:image/")
        assert not any(name.startswith("on") for name in attributes)
    assert "url(" not in text and "@import" not in text and "http://" not in text
    policies = [m for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert (policies[0]["content"] or "").startswith("default-src 'none'")


def test_what_files_say_is_text_and_never_markup(finished: Path) -> None:
    page = page_of(finished / "config.yml")
    assert len(page.all("script")) == 1 and page.all("b") == []
    assert "<script>alert(1)</script>" in page.text and "<b>odd</b> & ends" in page.text


@pytest.mark.parametrize("generates", [True, False])
def test_pixels_are_photographed_the_models_own_or_invented(copied: Path, generates: bool) -> None:
    """What is not photographed is invented only where the refiner of that view invents."""
    for header in copied.glob("rounds/*/views/*.json"):
        content = json.loads(header.read_text())
        header.write_text(json.dumps({**content, "pass": {**content["pass"], "generates": generates}}))
    real = sum(float(a_view(i, 60, 42).real.float().mean()) for i in range(2)) / 2
    page = page_of(copied / "config.yml")
    rest = f"{100 * (1 - real):.1f} %"
    assert f"{100 * real:.1f} % {'0.0 % ' + rest if generates else rest + ' 0.0 %'}" in page.text
    marked, other = ("invented pixels", "the model's own pixels")[:: 1 if generates else -1]
    assert f"mark {marked}" in page.text and f"mark {other}" not in page.text and "generated" not in page.text


def test_a_run_without_rounds_says_so(tmp_path: Path) -> None:
    assert "has no rounds yet" in page_of(write_config(tmp_path / "a", rounds=3)).text
    assert "This run has no rounds" in page_of(write_config(tmp_path / "b", rounds=0)).text


def test_a_run_that_is_training_says_how_far_it_is(tmp_path: Path) -> None:
    """Round 1 is over, round 2 has its plan and views, round 3 only its plan."""
    write_round(tmp_path, 1)
    write_round(tmp_path, 2, over=False)
    write_round(tmp_path, 3, over=False, views=0)
    page = page_of(write_config(tmp_path, rounds=3))
    assert "Still training, or stopped: 1 of 3 rounds are finished. Written at 2" in page.text
    assert "This round is not judged yet." in page.text and "No view of this round has been refined yet." in page.text
    assert len([i for i in page.all("input") if i.get("type") == "range"]) == 4
    assert "What could not be read" not in page.text


def test_broken_and_missing_files_are_named_and_the_rest_is_shown(copied: Path) -> None:
    folder = copied / "rounds/round_1"
    (folder / "renders/t0_frontier_00.png").unlink()
    damage(folder / "after/t0_update_01.png")
    damage(folder / "exact/t0_frontier_00.npz")
    damage(folder / "contact_sheet.png")
    damage(copied / "rounds/round_2/plan.json")
    (copied / "rounds/round_2/views/t0_update_01.json").write_text("[]")
    (copied / "rounds/round_2/contact_sheet.png").unlink()
    page = page_of(copied / "config.yml")
    for said in (
        "renders/t0_frontier_00.png is missing", "after/t0_update_01.png cannot be read",
        "t0_frontier_00", "The contact sheet cannot be shown", "plan.json cannot be read",
        "This round has no plan yet.", "t0_update_01.json", "contact_sheet.png is missing",
        "t0_frontier_00 cannot be shown: its picture 'render' is missing", "20.00 → 20.50 dB",
    ):  # fmt: skip
        assert said in page.text, said


Change = Callable[[dict[str, Any]], object]


def changed(**changes: object) -> Change:
    return lambda content: {**content, **changes}


BAD_FILES = [  # beyond what the store refuses, of which there is one here
    ("report.json", changed(seconds=["no"]), "report.json cannot be read .seconds is"),
    ("report.json", changed(seconds={"plan": float("inf")}), "report.json"),
    ("report.json", changed(kernel=3), "report.json cannot be read .kernel is 3"),
    ("plan.json", lambda content: {"plans": [{**content["plans"][0], "radius": 0}]}, "plan.json"),
    ("verdict.json", changed(photographs_round="x"), "verdict.json"),
    ("views/t0_update_01.json", changed(decision="yes"), "t0_update_01.json"),
]


@pytest.mark.parametrize(("name", "change", "message"), BAD_FILES)
def test_a_bad_file_costs_its_own_part_and_is_named(copied: Path, name: str, change: Change, message: str) -> None:
    path = copied / "rounds/round_1" / name
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    page = page_of(copied / "config.yml")
    said = page.text.partition("What could not be read:")[2]
    assert re.search(message, said), page.text[:3000]
    assert "2 (9x)" in page.text and "12,345" in page.text


def test_a_view_whose_file_has_an_odd_name_is_not_followed(copied: Path) -> None:
    (copied / "rounds/round_1/views/..%2fx.json").write_text("{}")
    (copied / "rounds/round_1/views/.t0_update_07.abcdefgh.json").write_text("{")
    page = page_of(copied / "config.yml")
    assert "t0_update_07" not in page.text
    assert len([i for i in page.all("input") if i.get("type") == "range"]) == 4


def test_scores_of_ns_eval_are_shown_by_scale(copied: Path) -> None:
    results = {"psnr": 20.5, "close_reliable_psnr_3x": 18.125, "close_reliable_psnr_27x": 15.5, "missing": {}}
    (copied / "eval.json").write_text(json.dumps({"results": results}))
    text = page_of(copied / "config.yml").text
    assert re.search(r"far views, psnr 20\.500 dB .*closer reliable psnr 3x 18\.125 27x 15\.500", text)


def test_the_page_appears_whole_or_not_at_all(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fills up while the page is written leaves the last one."""
    first = write_report(copied / "config.yml").read_bytes()

    def full(self: Path, *args: object, **kwargs: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", full)
        with pytest.raises(CloseupError, match="No space left on device"):
            write_report(copied / "config.yml")
    assert (copied / "rounds/report.html").read_bytes() == first
    assert [path.name for path in (copied / "rounds").glob(".*")] == []


def test_what_is_no_run_is_one_line(tmp_path: Path, finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        write_report(tmp_path / "config.yml")
    for text in (None, "{", "[]", '{"results": 3}', "{}"):
        if text is not None:
            (tmp_path / "eval.json").write_text(text)
        with pytest.raises(DataError, match=r"eval\.json.*ns-eval --output-path"):
            write_report(finished / "config.yml", tmp_path / "r.html", tmp_path / "eval.json")
    with pytest.raises(SystemExit) as stopped:
        main(["report", "--load-config", str(tmp_path / "none/config.yml")])
    assert stopped.value.code == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_the_command_says_where_the_page_is(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["report", "--load-config", str(finished / "config.yml"), "--output", str(tmp_path / "deep/r.html")])
    assert str(tmp_path / "deep/r.html") in capsys.readouterr().out
    assert (tmp_path / "deep/r.html").read_text(encoding="utf8").startswith("<!doctype html>")


def test_rounds_that_were_requested_in_the_viewer_are_told_as_they_were(tmp_path: Path) -> None:
    """config.yml has what the command line said: 60 steps of base, two rounds."""
    config = write_run(tmp_path / "run", rounds=2)
    store = RoundStore(config.parent / "rounds")
    store.save_schedule({"base_steps": 23, "rounds": 3, "round_steps": 12})
    text = page_of(config).text
    assert "23 steps on photographs alone, then 3 rounds of 12" in text
    assert "Still training, or stopped: 2 of 3 rounds are finished" in text
    store.save_schedule({"base_steps": 23, "rounds": 1, "round_steps": 12})
    text = page_of(config).text
    assert "then 1 rounds of 12" in text and "Still training" not in text, "fewer were planned than asked for"
    (config.parent / "rounds" / "schedule.json").write_text("[1")
    text = page_of(config).text
    assert "schedule.json cannot be read" in text and "60 steps on photographs alone, then 2 rounds" in text
