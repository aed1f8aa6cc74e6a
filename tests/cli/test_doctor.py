"""The doctor: each finding has a way to mend it, and nothing that is missing makes it crash."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from closeup_ns.cli import doctor
from closeup_ns.cli.doctor import Check
from closeup_ns.metrics.no_reference import INSTALL


@pytest.fixture
def without_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_version", lambda name: None)


def test_training_needs_only_the_essential() -> None:
    fine, optional = Check("python", "ok", "", essential=True), Check("pyiqa", "missing", "", "pip install pyiqa")
    assert doctor.can_train([fine, optional])
    assert not doctor.can_train([fine, Check("torch", "broken", "", essential=True)])


def test_a_check_that_fails_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def check_torch() -> Check:
        raise OSError("libtorch.so: cannot open\nshared object file")

    monkeypatch.setattr(doctor, "CHECKS", [check_torch])
    monkeypatch.setattr(doctor, "_ESSENTIAL", (check_torch,))
    (finding,) = doctor.examine()
    assert finding.status == "broken" and finding.essential
    assert finding.detail == "OSError: libtorch.so: cannot open shared object file"


def test_json_is_machine_readable_and_sets_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        doctor, "CHECKS", [lambda: Check("torch", "broken", "gone", "pip install torch", essential=True)]
    )
    with pytest.raises(SystemExit) as left:
        doctor.doctor(json=True)
    assert left.value.code == 1
    assert json.loads(capsys.readouterr().out) == [
        {"name": "torch", "status": "broken", "detail": "gone", "remedy": "pip install torch", "essential": True}
    ]


def test_the_table_prints_commands_whole(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    remedy = "pip install --no-deps " + " ".join(f"package{number}[all]" for number in range(30))
    monkeypatch.setattr(doctor, "CHECKS", [lambda: Check("many", "missing", "x" * 300, remedy)])
    doctor.doctor()
    printed = capsys.readouterr().out
    assert remedy in printed
    assert "Training works" in printed


@pytest.mark.usefixtures("without_packages")
@pytest.mark.parametrize("check", [doctor.check_packages, doctor.check_see3d, doctor.check_pyiqa])
def test_what_is_absent_comes_with_its_command(check) -> None:
    finding = check()
    assert finding.status != "ok"
    assert "pip install" in finding.remedy


def test_pyiqas_command_works_beside_nerfstudios_pins() -> None:
    """Pip refuses pyiqa next to nerfstudio's timm==0.6.7, so neither may be resolved."""
    assert "--no-deps 'pyiqa" in INSTALL and "'timm" in INSTALL.split("--no-deps")[1]
    extra = [line for line in doctor.metadata.requires("closeup-ns") or [] if "metrics" in line]
    assert not any(line.startswith(("pyiqa", "timm")) for line in extra)


def test_clashing_pins_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = {"numpy": "1.26.4", "viser": "1.0.0", "timm": "1.0.31"}
    pins = [
        "numpy>=1.20",
        "viser==0.2.7",
        "timm==0.6.7",
        "absent>=1",
        "other; extra == 'dev'",
        "win; sys_platform == 'win32'",
    ]
    monkeypatch.setattr(doctor, "_version", installed.get)
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: pins)
    finding = doctor.check_pins()
    assert finding.status == "broken"
    assert "viser 1.0.0 (pinned ==0.2.7)" in finding.detail and "absent is absent" in finding.detail
    assert "timm" not in finding.detail and "other" not in finding.detail and "win" not in finding.detail


def test_a_crash_in_a_subprocess_is_told_from_an_import_error() -> None:
    assert doctor._fails_to_run("pass") is None
    assert "No module named 'nowhere_at_all'" in str(doctor._fails_to_run("import nowhere_at_all"))
    assert "-6" in str(doctor._fails_to_run("import os; os.abort()"))


def test_a_full_disk_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(2**40, 2**40, 2**20))
    assert doctor.check_disk().status == "broken"


def test_lpips_weights_are_found_where_torch_hub_keeps_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import torch

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert doctor.check_lpips().status == "missing"
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "alexnet-owt-7be5be79.pth").touch()
    assert doctor.check_lpips().status == "ok"


@pytest.mark.integration
def test_the_command_runs_here() -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "closeup_ns.cli.main", "doctor", "--json"], capture_output=True, text=True, timeout=600
    )
    findings = {finding["name"]: finding for finding in json.loads(finished.stdout)}
    assert findings["python"]["status"] == findings["torch"]["status"] == "ok"
    assert finished.returncode == (0 if all(f["status"] == "ok" for f in findings.values() if f["essential"]) else 1)
    assert all(finding["remedy"] for finding in findings.values() if finding["status"] != "ok")
