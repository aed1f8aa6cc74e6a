"""What the report offers of an exported scene."""

from __future__ import annotations

import math
import shlex
from pathlib import Path

import pytest
import torch

from closeup_ns.report.exported import UPRIGHT, page_settings
from closeup_ns.report.write import write_report
from closeup_ns.views.view import look_at
from tests.report.made_up import write_run
from tests.report.test_write import Page


def turn(axis: int, degrees: float) -> torch.Tensor:
    """A right-handed rotation [3, 3] about x, y or z."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    matrix = torch.eye(3)
    i, j = (axis + 1) % 3, (axis + 2) % 3
    matrix[i, i], matrix[i, j], matrix[j, i], matrix[j, j] = c, -s, s, c
    return matrix


def test_the_viewer_opens_at_the_target_with_the_scene_upright() -> None:
    """Held to what was seen of splat-transform 3.7: half a turn about z, then its --rotate; the viewer's y is up."""
    K, target, up = torch.tensor([[200.0, 0, 100], [0, 100, 75], [0, 0, 1]]), torch.tensor([0.5, -1, 2]), [0.0, 0, 1]
    view = look_at(torch.tensor([3.0, 1, 4]), target, torch.tensor(up), K, 200, 150)
    shown = turn(0, float(UPRIGHT.split(",")[0])) @ turn(2, 180)
    settings = page_settings(view, target, torch.tensor([0.25, 0.5, 0.75]))
    camera = settings["camera"]
    torch.testing.assert_close(torch.tensor(camera["position"]), shown @ view.position)
    torch.testing.assert_close(torch.tensor(camera["target"]), shown @ target)
    torch.testing.assert_close(shown @ torch.tensor(up), torch.tensor([0.0, 1, 0]))
    assert camera["fov"] == pytest.approx(2 * math.degrees(math.atan(0.75)))  # the wider of the two
    assert settings["background"]["color"] == [0.25, 0.5, 0.75]


def test_it_links_to_the_page_beside_the_file_and_else_says_what_writes_it(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a run").parent
    nothing = Page(write_report(run / "config.yml").read_text(encoding="utf8"))
    assert "exported scene" not in nothing.text and not nothing.all("a")
    for name in ("supersplat.json", "supersplat.html", "classic.json", "antialiased.ply"):  # the last has no page
        (run / f"splat-{name}").touch()
    links = {None: "../splat-supersplat.html?aa", tmp_path / "r.html": "a%20run/splat-supersplat.html?aa"}
    page = nothing
    for report, link in links.items():
        page = Page(write_report(run / "config.yml", report).read_text(encoding="utf8"))
        assert [each["href"] for each in page.all("a")] == [link]
    command = shlex.split(page.text.split("then links to, ")[1].split(" Round ")[0])
    assert command[:2] == ["npx", "@playcanvas/splat-transform@3"]
    assert {str(run / f"splat-classic.{kind}") for kind in ("json", "ply", "html")} <= set(command)
    assert "splat-antialiased" not in page.text
