"""External programs: what they are given, what is believed of what they give back, and every way in which they fail."""

from __future__ import annotations

import os
import re
import sys
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from closeup_ns.errors import RefinerError
from closeup_ns.refine.programs.external import Program, file_names

OPTION = "--run"
COPY = "import sys, shutil; shutil.copy(sys.argv[1] + '/a.png', sys.argv[2] + '/a.png')"


def script(tmp_path: Path, body: str, timeout: float = 60.0) -> Program:
    """A Python program that has its folders in ``source`` and ``sink``; its path has a space in it."""
    folder = tmp_path / "with space"
    folder.mkdir(exist_ok=True)
    path = folder / "program.py"
    path.write_text(
        "import sys, os, pathlib\nfrom PIL import Image\n"
        "source, sink = map(pathlib.Path, sys.argv[1:3])\n" + body + "\n"
    )
    return Program(f'{sys.executable} "{path}" {{input}} {{output}}', timeout, OPTION)


def picture(generator: torch.Generator, height: int = 6, width: int = 8) -> torch.Tensor:
    return torch.randint(0, 256, (height, width, 3), generator=generator).float() / 255


@pytest.mark.parametrize(
    "template, says",
    [
        ("", "is empty.*fix.py {input} {output}"),
        ("   ", "is empty"),
        ("fix {input}", "lacks {output}"),
        ("fix {output}", "lacks {input}"),
        ("fix", "lacks {input} and {output}"),
        ("fix 'a {input} {output}", "cannot be split"),
        ("no-such-program-anywhere {input} {output}", "no program 'no-such-program-anywhere' on PATH"),
        ("./no/such/file {input} {output}", "no file ./no/such/file"),
    ],
)
def test_a_wrong_command_is_refused_before_anything_runs(template: str, says: str) -> None:
    program = Program(template, 1.0, OPTION)
    reason = program.why_not()
    assert reason is not None and "\n" not in reason and OPTION in reason
    with pytest.raises(RefinerError, match=says):
        program.treat({}, {})


def test_a_script_that_is_not_executable_and_a_timeout_of_nothing(tmp_path: Path) -> None:
    path = tmp_path / "fix.py"
    path.write_text("pass")
    assert "python " in (Program(f"{path} {{input}} {{output}}", 1.0, OPTION).why_not() or "")
    assert "more than 0 seconds" in (Program("true {input} {output}", 0.0, OPTION).why_not() or "")
    assert "more than 0 seconds" in (Program("true {input} {output}", float("nan"), OPTION).why_not() or "")
    path.chmod(0o755)
    with pytest.raises(RefinerError, match="cannot be started.*interpreter"):  # no #! line
        Program(f"{path} {{input}} {{output}}", 1.0, OPTION).treat({}, {})


def test_no_shell_reads_the_command(tmp_path: Path, generator: torch.Generator) -> None:
    mark = tmp_path / "mark"
    program = Program(f'{sys.executable} -c "{COPY}" {{input}} {{output}} ; touch {mark} $(touch {mark})', 60, OPTION)
    original = picture(generator)
    assert torch.equal(program.treat({"a.png": original}, {"a.png": (6, 8)})["a.png"], original)  # type: ignore
    assert not mark.exists()


def test_what_is_written_and_what_comes_back(tmp_path: Path, generator: torch.Generator) -> None:
    program = script(
        tmp_path,
        "import json\n"
        "assert sorted(p.name for p in source.iterdir()) == ['masks', 'r.json', 'renders']\n"
        "assert json.loads((source / 'r.json').read_text()) == {'seed': 3}\n"
        "image, mask = Image.open(source / 'renders/a.png'), Image.open(source / 'masks/a.png')\n"
        "assert (image.mode, image.size, mask.mode) == ('RGB', (8, 6), 'L'), (image, mask)\n"
        "assert mask.getpixel((1, 0)) == 255 and mask.getpixel((0, 1)) == 0\n"
        "image.transpose(0).save(sink / 'a.png')",
    )
    image = picture(generator)
    mask = torch.zeros(6, 8, dtype=torch.bool)
    mask[0, 1] = True
    bad = image.clone()
    bad[0, 0] = torch.tensor([float("nan"), 2.0, -1.0])
    made = program.treat({"renders/a.png": bad, "masks/a.png": mask, "r.json": {"seed": 3}}, {"a.png": (6, 8)})["a.png"]
    assert isinstance(made, torch.Tensor)
    assert made.dtype == torch.float32
    expected = image.clone()
    expected[0, 0] = torch.tensor([0.0, 1.0, 0.0])
    assert torch.equal(made, expected.flip(1))


def test_levels_are_rounded_not_cut(tmp_path: Path) -> None:
    values = torch.rand(6, 8, 3, generator=torch.Generator().manual_seed(1))
    program = Program(f'{sys.executable} -c "{COPY}" {{input}} {{output}}', 60, OPTION)
    made = program.treat({"a.png": values}, {"a.png": (6, 8)})["a.png"]
    assert float((made - values).abs().max()) <= 0.5 / 255 + 1e-6  # type: ignore[operator]


WRONG = {
    "none": ("pass", "wrote no output/none.png .in output/: "),
    "turned": ("Image.new('RGB', (6, 8)).save(path)", "6 x 8 pixels; it must be 8 x 6"),
    "large": ("Image.new('RGB', (16, 12)).save(path)", "16 x 12 pixels; it must be 8 x 6"),
    "alpha": ("Image.new('RGBA', (8, 6)).save(path)", "mode RGBA.*8-bit RGB"),
    "gray": ("Image.new('L', (8, 6)).save(path)", "mode L"),
    "deep": ("Image.new('I;16', (8, 6)).save(path)", "mode I;16"),
    "jpeg": ("Image.new('RGB', (8, 6)).save(path, 'JPEG')", "cannot be read as a PNG"),
    "empty": ("path.write_bytes(b'')", "cannot be read as a PNG"),
    "cut": ("path.write_bytes((sink / 'good.png').read_bytes()[:60])", "cannot be read as a PNG"),
    "folder": ("path.mkdir()", "wrote no output/folder.png"),
    "pipe": ("os.mkfifo(path)", "wrote no output/pipe.png"),
    "link": ("path.symlink_to(source / 'a.png')", "leaves the output folder"),
    "loop": ("path.symlink_to(path.name)", "wrote no|cannot be read"),
}


def test_a_picture_that_is_none_is_said_and_the_others_are_kept(tmp_path: Path) -> None:
    good = "Image.linear_gradient('L').resize((8, 6)).convert('RGB').save(sink / 'good.png')"
    body = "\n".join([good, *(f"path = sink / '{name}.png'; {code}" for name, (code, _) in WRONG.items())])
    expected = dict.fromkeys([*(f"{name}.png" for name in WRONG), "good.png"], (6, 8))
    made = script(tmp_path, body).treat({"a.png": torch.zeros(6, 8, 3)}, expected)
    assert isinstance(made["good.png"], torch.Tensor) and float(made["good.png"].max()) > 0.8
    for name, (_, says) in WRONG.items():
        fault = made[f"{name}.png"]
        assert isinstance(fault, str) and "\n" not in fault and re.search(says, fault), (name, fault)


@pytest.mark.parametrize("put", ["symlink_to(source)", "exists()"])
def test_an_output_folder_that_is_gone_or_a_link_leads_nowhere(tmp_path: Path, put: str) -> None:
    made = script(tmp_path, f"sink.rmdir(); sink.{put}").treat({"a.png": torch.zeros(6, 8, 3)}, {"a.png": (6, 8)})
    assert re.search("leaves the output folder|cannot be read", str(made["a.png"]))


def test_a_failing_program_is_quoted(tmp_path: Path) -> None:
    program = script(tmp_path, "print('x' * 5000)\nprint('to stdout', flush=True)\nsys.exit('no licence file')")
    with pytest.raises(RefinerError, match="exit code 1") as caught:
        program.treat({}, {})
    assert "to stdout" in str(caught.value) and "no licence file" in str(caught.value)
    assert len(str(caught.value)) < 2500
    with pytest.raises(RefinerError, match="signal 9; it printed nothing"):
        script(tmp_path, "os.kill(os.getpid(), 9)").treat({}, {})


def test_a_program_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    body = (
        "import subprocess, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"pathlib.Path({str(pids)!r}).write_text(f'{{os.getpid()}} {{child.pid}}')\n"
        "print('half way', flush=True)\ntime.sleep(600)"
    )
    told = ""
    for seconds in (2.0, 20.0, 200.0):  # a busy machine may take longer than that to start two Pythons
        if "half way" not in told:
            with pytest.raises(RefinerError, match=f"stopped after {seconds:g} s") as caught:
                script(tmp_path, body, seconds).treat({}, {})
            told = str(caught.value)
    assert re.search("stopped after .*\n.*half way", told)
    for pid in map(int, pids.read_text().split()):
        deadline = time.monotonic() + 120
        while _alive(pid) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not _alive(pid)


def _alive(pid: int) -> bool:
    """Whether a process runs; a zombie, which only its parent can take away, does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_it_reads_nothing_from_the_terminal_and_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(tmp_path)  # as on systems whose folder for temporary files is a link
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "link"))
    body = "assert sys.stdin.read() == ''\n(sink / 'more').mkdir()\nImage.new('RGB', (8, 6)).save(sink / 'a.png')"
    assert not isinstance(script(tmp_path, body).treat({}, {"a.png": (6, 8)})["a.png"], str)
    with pytest.raises(RefinerError):
        script(tmp_path, "sys.exit(3)").treat({"a.png": torch.zeros(6, 8, 3)}, {})
    assert not list(tmp_path.glob("closeup-*"))


@given(st.lists(st.text(max_size=120), max_size=8))
def test_names_of_files_are_safe_and_differ(names: list[str]) -> None:
    stems = file_names(names)
    assert len({stem.lower() for stem in stems}) == len(names)
    for stem in stems:
        assert stem == os.path.basename(stem) and stem.isascii() and not stem.startswith(".") and 0 < len(stem) < 100


def test_names_stay_readable() -> None:
    assert len(file_names(["n" * 300])[0]) == 80  # file systems end at 255 bytes
    assert file_names(["round1/t0_update_03", "train/frame_00012", "../..", "a/b", "a_b", "A b"]) == [
        "round1_t0_update_03", "train_frame_00012", "view", "a_b", "a_b_2", "A_b_3"
    ]  # fmt: skip
