"""`closeup-gs path`: its options and what it says."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import tyro

from closeup_ns.cli.path import WritePath, render_command
from closeup_ns.errors import CloseupError


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], r"nowhere/config\.yml"),
        (["--zoom", "0.5"], "zoom must be more than 1"),
        (["--long-side", "-4"], "--long-side -4 is no size"),
        (["--frames", "1"], "--frames 1 at --fps 30 makes no video"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_loaded(options: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(CloseupError, match=message):
        tyro.cli(WritePath, args=["--load-config", str(tmp_path / "nowhere" / "config.yml"), *options]).main()


def test_the_command_to_render_with_can_be_pasted() -> None:
    """Whatever the folders are called."""
    config, path = Path("my run/config.yml"), Path("a 'dive' $HOME.json")
    arguments = shlex.split(render_command(config, path))
    assert arguments[:2] == ["ns-render", "camera-path"]
    assert dict(zip(arguments[2::2], arguments[3::2])) == {
        "--load-config": str(config), "--camera-path-filename": str(path), "--output-path": "a 'dive' $HOME.mp4",
    }  # fmt: skip
    assert "'" not in render_command(Path("run/config.yml"), Path("dive.json"))
