"""From the command line's words to targets, with errors that say what to write instead."""

from __future__ import annotations

import pytest
import torch

from closeup_ns.errors import PlanningError
from closeup_ns.planning.targets import TargetConfig, check_targets, resolve_targets
from closeup_ns.views.warp import backproject
from tests.scenes import analytic_renderer, facing_views

VIEWS = facing_views(6)
NAMES = [f"photo {index}.jpg" for index in range(6)]
RENDER = analytic_renderer()


def check(config: TargetConfig) -> None:
    """What is refused before there is a model to render."""
    check_targets(config, NAMES, VIEWS)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("photo 1.jpg", "NAME:COLUMN:ROW, e.g. photo 0.jpg:120:80"),
        ("photo 1.jpg:5", "NAME:COLUMN:ROW"),
        ("photo 1.jpg:5:6:7", "NAME:COLUMN:ROW"),
        ("photo 1.jpg:five:6", "NAME:COLUMN:ROW"),
        ("", "NAME:COLUMN:ROW"),
        ("photo 9.jpg:5:6", "none is called photo 9.jpg; there are photo 0.jpg"),
        ("photo 1.jpg:160:6", "photo 1.jpg is 160x120 pixels"),
        ("photo 1.jpg:5:120", "160x120"),
        ("photo 1.jpg:-1:6", "160x120"),
        ("photo 1.jpg:nan:6", "160x120"),
    ],
)
def test_what_cannot_be_read_is_named(text: str, reason: str) -> None:
    for refuse in (lambda config: resolve_targets(config, NAMES, VIEWS, RENDER), check):
        with pytest.raises(PlanningError, match=reason) as caught:
            refuse(TargetConfig(pixel=(text,)))
        assert f"--pipeline.target.pixel {text}" in str(caught.value)


def test_a_pixel_is_column_then_row() -> None:
    [target] = resolve_targets(TargetConfig(pixel=("photo 2.jpg:100:40",)), NAMES, VIEWS, RENDER)
    expected = backproject(VIEWS[2], RENDER(VIEWS[2]).depth)[40, 100]
    torch.testing.assert_close(target.point, expected, atol=0.03, rtol=0)


def test_several_targets_keep_their_order() -> None:
    config = TargetConfig(xyz=((0.0, 0.1, 4.0), (-0.3, 0.0, 4.0)), pixel=("photo 0.jpg:80:60",))
    check(config)
    targets = resolve_targets(config, NAMES, VIEWS, RENDER)
    assert len(targets) == 3
    assert [target.point.tolist() for target in targets[:2]] == [[0.0, 0.1, 4.0], [-0.3, 0.0, 4.0]]


def test_with_no_word_the_scene_decides(capsys: pytest.CaptureFixture[str]) -> None:
    check(TargetConfig())
    [target] = resolve_targets(TargetConfig(), NAMES, VIEWS, RENDER)
    assert float(target.point[2]) > 3
    assert "Target: (" in capsys.readouterr().out


def test_an_unreliable_target_is_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    resolve_targets(TargetConfig(xyz=((0.0, 0.0, 2.5),)), NAMES, VIEWS, RENDER)
    printed = " ".join(capsys.readouterr().out.split())
    assert "only 0% of the 6 known views" in printed and "--pipeline.target.pixel" in printed


@pytest.mark.parametrize(
    ("point", "reason"),
    [
        ((0.0, 0.0, -60.0), "none of the 6 known views has the target .* behind or beside every"),
        ((500.0, 0.0, 4.0), "none of the 6 known views"),
        ((0.0, float("nan"), 4.0), "three finite world coordinates"),
        ((float("inf"), 0.0, 4.0), "three finite world coordinates"),
    ],
)
def test_a_point_in_no_image_is_refused_also_without_a_model(point: tuple[float, float, float], reason: str) -> None:
    for refuse in (lambda config: resolve_targets(config, NAMES, VIEWS, RENDER), check):
        with pytest.raises(PlanningError, match=reason):
            refuse(TargetConfig(xyz=((0.0, 0.0, 4.0), point)))


def test_names_may_hold_colons_and_folders_and_brackets() -> None:
    names = [f"walk 12:30/[/b] {index}.jpg" for index in range(6)]
    config = TargetConfig(pixel=("walk 12:30/[/b] 2.jpg:100:40", "[/b] 2.jpg:100:40"))
    first, second = resolve_targets(config, names, VIEWS, RENDER)
    assert torch.equal(first.point, second.point)
