"""The doctor: each finding has a way to mend it, and nothing that is missing makes it crash."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from closeup_ns.cli import doctor
from closeup_ns.cli.doctor import Check
from closeup_ns.metrics.no_reference import INSTALL


def test_what_is_essential_and_fails_is_a_finding_and_sets_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def check_torch() -> Check:
        raise OSError("libtorch.so: cannot open\nshared object file")

    monkeypatch.setattr(doctor, "check_torch", check_torch)
    monkeypatch.setattr(doctor, "CHECKS", [check_torch])
    with pytest.raises(SystemExit, match="1"):
        doctor.doctor()
    said = " ".join(capsys.readouterr().out.split())
    assert "OSError: libtorch.so: cannot open shared object file" in said and "mend torch first" in said


def test_the_table_prints_commands_whole(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """And what is missing but not essential keeps nobody from training."""
    remedy = "pip install --no-deps " + " ".join(f"package{number}[all]" for number in range(30))
    monkeypatch.setattr(doctor, "CHECKS", [lambda: Check("many", "missing", "x" * 300, remedy)])
    doctor.doctor()
    printed = capsys.readouterr().out
    assert remedy in printed
    assert "Training works" in printed


@pytest.mark.parametrize(
    "check", [doctor.check_nerfstudio, doctor.check_see3d, doctor.check_pyiqa, doctor.check_mitsuba]
)
def test_what_is_absent_comes_with_its_command(check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_version", lambda name: None)
    finding = check()
    assert finding.status != "ok"
    assert "pip install" in finding.remedy


def test_pyiqas_command_works_beside_nerfstudios_pins() -> None:
    """Pip refuses pyiqa next to nerfstudio's timm==0.6.7, so neither may be resolved."""
    assert "--no-deps 'pyiqa" in INSTALL and "'timm" in INSTALL.split("--no-deps")[1]
    extra = [line for line in doctor.metadata.requires("closeup-ns") or [] if "metrics" in line]
    assert not any(line.startswith(("pyiqa", "timm")) for line in extra)


def test_a_crash_in_a_subprocess_is_told_from_an_import_error() -> None:
    assert doctor._fails_to_run("pass") is None
    assert "No module named 'nowhere_at_all'" in str(doctor._fails_to_run("import nowhere_at_all"))
    assert "-6" in str(doctor._fails_to_run("import os; os.abort()"))


def test_lpips_weights_are_found_where_torch_hub_keeps_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert doctor.check_lpips().status == "missing"
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "alexnet-owt-7be5be79.pth").touch()
    assert doctor.check_lpips().status == "ok"


@pytest.mark.integration
def test_every_finding_here_that_is_not_ok_has_a_remedy() -> None:
    findings = [check() for check in doctor.CHECKS]
    assert findings[0].name == "torch" and findings[0].status == "ok"
    assert all(finding.remedy for finding in findings if finding.status != "ok")
