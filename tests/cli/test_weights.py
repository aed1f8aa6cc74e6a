"""`closeup-gs weights`: fetched, verified, explained; against a hub on this machine."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from closeup_ns.cli import doctor
from closeup_ns.cli.main import main
from closeup_ns.errors import RefinerError
from closeup_ns.refine.options import SEE3D_HUB, SEE3D_REVISION, See3DRefinerConfig
from closeup_ns.refine.see3d import layout, published
from closeup_ns.refine.see3d.loading import load_components
from closeup_ns.weights import files
from closeup_ns.weights.files import MANIFEST, read_manifest
from tests.weights.fake_hub import FakeHub

pytest_plugins = ("tests.weights.fixtures",)

VAE = "vae/diffusion_pytorch_model.safetensors"


@pytest.fixture
def go_offline(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Takes the hub away for the rest of a test."""
    from huggingface_hub import constants

    return lambda: monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")


def leaves_with(message: str, *arguments: str, capsys: pytest.CaptureFixture[str], code: int = 1) -> str:
    """Runs the command, which fails with one last line that holds ``message``; returns all that it printed."""
    with pytest.raises(SystemExit) as left:
        main(["weights", *arguments])
    assert left.value.code == code
    printed = capsys.readouterr()
    assert message in printed.err.splitlines()[-1]
    return printed.out + printed.err


def test_fetched_weights_are_listed_verified_and_ready(hub: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    main(["weights", "see3d"])
    printed = capsys.readouterr().out
    folder = layout.cached_folder(SEE3D_HUB, SEE3D_REVISION)
    assert folder is not None
    total = 0
    for name in layout.files_for(["sparse"]):
        (line,) = [line for line in printed.splitlines() if line.startswith(f"  {name} ")]
        assert "as published" in line and files.sha256_of(folder / name)[:12] in line
        total += (folder / name).stat().st_size
    assert "15 files, 1.5 MB" in printed
    # The licence: of the code, which has none; of the weights, with the page and what the card says.
    assert "(baaivision/See3D) has none" in printed
    assert "huggingface.co/bruiiii/See3D; the card here says: other, example-1.0" in printed
    assert not any(name in "".join(hub.sent) for name in ("single", "SR", ".bin"))
    assert See3DRefinerConfig().why_not(torch.device("cpu")) is None
    load_components(SEE3D_HUB, "sparse")


def test_other_networks_join_what_is_there(hub: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    main(["weights", "see3d"])
    hub.sent.clear()
    main(["weights", "see3d", "--unets", "SR", "single"])
    assert all("unet/SR" in name or "unet/single" in name for name in hub.sent)
    folder = layout.find(SEE3D_HUB, SEE3D_REVISION)
    manifest = read_manifest(folder)
    assert manifest is not None and manifest.revision == SEE3D_REVISION and manifest.repository == SEE3D_HUB
    assert set(layout.files_for(layout.UNETS)) <= set(manifest.files)
    assert manifest.files[VAE].sha256 == files.sha256_of(folder / VAE)


def test_verified_once_they_can_be_verified_without_the_hub(
    hub: FakeHub, go_offline: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    main(["weights", "see3d"])
    go_offline()
    for options in (["--verify"], ["--offline"]):
        capsys.readouterr()
        main(["weights", "see3d", *options])
        printed = capsys.readouterr().out
        assert printed.count("as published") == 15 and f"held against {MANIFEST}" in printed


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (lambda content: content[:-1] + bytes([content[-1] ^ 1]), "its sha256 is"),
        (lambda content: content[:-1], "cut off at"),
        (lambda content: b"", "empty"),
        (None, "missing"),
    ],
)
def test_verifying_finds_what_went_bad_and_fetching_mends_it(
    hub: FakeHub,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[bytes], bytes] | None,
    fault: str,
) -> None:
    main(["weights", "see3d"])
    path = layout.find(SEE3D_HUB, SEE3D_REVISION) / VAE
    if damage is None:
        path.unlink()
    else:
        path.resolve().write_bytes(damage(path.read_bytes()))
    capsys.readouterr()
    printed = leaves_with("1 of 15 files are missing or wrong", "see3d", "--verify", capsys=capsys)
    (line,) = [line for line in printed.splitlines() if line.startswith(f"  {VAE} ")]
    assert fault in line
    # What belongs where is said of the folder that was looked at.
    assert f"\n  {path.parents[1]}/\n" in printed
    main(["weights", "see3d"])
    main(["weights", "see3d", "--verify"])


def test_a_hub_that_goes_away_in_the_middle(hub: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    """What was complete is kept, what to do is said, and the next call goes on from there."""
    hub.fails_after = 15
    printed = leaves_with("12 of 13 files are complete and kept in", "see3d", capsys=capsys)
    assert "the same command goes on from there" in printed and "cannot be reached" in printed
    assert "snapshot_download" in printed and "--pipeline.refiner.see3d.weights" in printed
    assert "unet/sparse" in str(See3DRefinerConfig().why_not(torch.device("cpu")))
    hub.fails_after = None
    before = list(hub.sent)
    main(["weights", "see3d"])
    assert len(hub.sent) == len(before) + 1 and "unet/sparse" in hub.sent[-1]


def test_a_download_that_is_stopped(
    hub: FakeHub, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*arguments: object, **keywords: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("huggingface_hub.hf_hub_download", stop)
        printed = leaves_with("stopped", "see3d", capsys=capsys, code=130)
    assert "0 of 13 files are complete" in printed
    main(["weights", "see3d"])


def test_no_hub_and_nothing_here_says_what_to_put_where(
    hub: FakeHub, go_offline: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    go_offline()
    for options in ([], ["--offline"], ["--verify"]):
        printed = leaves_with("", "see3d", *options, capsys=capsys)
        assert all(f"    {name}" in printed for name in layout.files_for(["sparse"]))
        assert "See3D/checkpoint/MVD_weights/" in printed and SEE3D_REVISION in printed
        assert "'*/unet/single/*', '*/unet/SR/*'" in printed
        assert "`closeup-gs weights see3d --unets sparse` fetches it" in printed


def test_the_environment_can_forbid_the_hub(
    hub: FakeHub, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in leaves_with("not in the local Hugging Face cache", "see3d", capsys=capsys)
    assert not hub.sent


def test_a_repository_that_lacks_a_network(hub: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(hub.root / "checkpoint" / "MVD_weights" / "unet" / "SR")
    leaves_with("has no unet/SR/ema-checkpoint/config.json, unet/SR/", "see3d", "--unets", "SR", capsys=capsys)
    assert not hub.sent


def test_a_local_folder_is_held_against_the_hub_once(
    hub: FakeHub, go_offline: Callable[[], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(hub.root, tmp_path / "mine"))
    main(["weights", "see3d", "--folder", str(folder)])
    printed = capsys.readouterr().out
    assert printed.count("as published") == 15 and "held against the hub's sizes and checksums" in printed
    assert not hub.sent
    go_offline()
    main(["weights", "see3d", "--folder", str(folder / "checkpoint")])
    assert f"held against {MANIFEST}" in capsys.readouterr().out
    # Other networks are not in the record, and the hub is gone.
    main(["weights", "see3d", "--folder", str(folder), "--unets", "single"])
    printed = capsys.readouterr().out
    assert f"{MANIFEST}; their own headers, since the hub cannot be reached" in printed
    assert printed.count("as published") == 13 and "whole: by size and header" in printed


def test_a_local_folder_of_another_release_is_found_out(
    hub: FakeHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(hub.root, tmp_path / "mine"))
    path = folder / layout.BELOW / "unet" / "sparse" / "ema-checkpoint" / "diffusion_pytorch_model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    leaves_with("1 of 15 files are missing or wrong", "see3d", "--folder", str(folder), capsys=capsys)
    assert read_manifest(folder / layout.BELOW) is None


def test_a_local_folder_offline_is_judged_by_its_headers(
    published_folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    main(["weights", "see3d", "--folder", str(published_folder), "--offline"])
    printed = capsys.readouterr().out
    assert "held against their own headers" in printed and "as published" not in printed


def test_another_models_network_is_found_out_without_the_hub(
    published_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whole files, but of a network with four channels, and of a schedule that diverges."""
    folder = Path(shutil.copytree(published_folder, tmp_path / "mine"))
    path = folder / layout.BELOW / layout.unet_folder("sparse") / "diffusion_pytorch_model.safetensors"
    save_file({"input_blocks.0.0.weight": torch.zeros(32, 4, 3, 3), "out.2.weight": torch.zeros(4, 32, 3, 3)}, path)
    schedule = folder / layout.BELOW / "scheduler" / "scheduler_config.json"
    schedule.write_text(schedule.read_text().replace("v_prediction", "epsilon"))
    arguments = ("see3d", "--folder", str(folder), "--offline")
    printed = leaves_with("2 of 15 files are missing or wrong", *arguments, capsys=capsys)
    assert "reads 4 channels" in printed and "prediction_type 'epsilon'" in printed
    assert "Traceback" not in printed


def test_a_record_of_another_revision_is_not_believed(
    hub: FakeHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(hub.root, tmp_path / "mine"))
    files.write_manifest(folder / layout.BELOW, files.Manifest(SEE3D_HUB, "0" * 40, {VAE: files.Expected(1, "0")}))
    main(["weights", "see3d", "--folder", str(folder), "--offline"])
    assert f"not {MANIFEST}, which is about bruiiii/See3D at 000000000000" in capsys.readouterr().out


def test_a_folder_that_cannot_be_written_is_verified_all_the_same(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*arguments: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr(published, "write_manifest", refuse)
    main(["weights", "see3d", "--folder", str(hub.root)])
    assert "as published" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["nowhere", "."])
def test_a_folder_of_something_else(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    printed = leaves_with("", "see3d", "--folder", name, capsys=capsys)
    assert "What has to be where" in printed and "Traceback" not in printed


@pytest.mark.parametrize(
    ("card", "said"),
    [
        ("---\nlicense: apache-2.0\ntags: [a]\n---\n", "the card here says: apache-2.0"),
        ("---\ntags: [a]\n---\nlicense: mit\n", "the card here names none"),
        ("# See3D\n", "the card here names none"),
        (None, "the card is not among these files"),
    ],
)
def test_what_a_card_says_of_the_licence(tmp_path: Path, card: str | None, said: str) -> None:
    if card is not None:
        (tmp_path / "README.md").write_text(card)
    folder = tmp_path / layout.BELOW
    assert published.licence(folder).startswith(said)


def test_tiny_weights_are_written_whole_and_only_to_a_new_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "new" / "tiny"
    main(["weights", "tiny", "--folder", str(folder), "--unets", "single", "--seed", "3"])
    assert f"--pipeline.refiner.see3d.weights {folder}" in capsys.readouterr().out
    assert [path.name for path in folder.parent.iterdir()] == ["tiny"]
    load_components(folder, "single")
    leaves_with("is not an empty folder", "tiny", "--folder", str(folder), capsys=capsys)
    (tmp_path / "empty").mkdir()
    main(["weights", "tiny", "--folder", str(tmp_path / "empty"), "--unets", "single", "--seed", "3"])
    name = Path(layout.BELOW) / VAE
    assert (tmp_path / "empty" / name).read_bytes() == (folder / name).read_bytes()


def test_the_doctor_says_which_networks_are_here(hub: FakeHub) -> None:
    finding = doctor.check_see3d_weights()
    assert (finding.status, finding.remedy) == ("missing", "closeup-gs weights see3d")
    main(["weights", "see3d"])
    finding = doctor.check_see3d_weights()
    assert finding.status == "ok" and finding.detail.startswith("sparse in ")
    (layout.find(SEE3D_HUB, SEE3D_REVISION) / VAE).unlink()
    finding = doctor.check_see3d_weights()
    assert finding.status == "broken" and f"{VAE} (missing)" in finding.detail
    assert doctor.check_see3d_weights in doctor.CHECKS


def test_the_hubs_library_is_asked_for_by_its_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "huggingface_hub" else found(name))
    leaves_with("pip install 'closeup-ns[see3d]'", "see3d", capsys=capsys)


def test_the_doctor_wants_the_libraries_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "missing_packages", lambda: ["diffusers"])
    finding = doctor.check_see3d_weights()
    assert finding.status == "missing" and finding.remedy == layout.INSTALL


def test_a_manifest_that_cannot_be_read_is_said(hub: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    main(["weights", "see3d"])
    folder = layout.find(SEE3D_HUB, SEE3D_REVISION)
    (folder / MANIFEST).write_text("{")
    with pytest.raises(RefinerError, match="remove it"):
        published.verify(folder, SEE3D_HUB, SEE3D_REVISION, ["sparse"], online=False)
    main(["weights", "see3d"])
    assert read_manifest(folder) is not None
