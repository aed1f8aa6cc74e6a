"""An exported scene in a public viewer, Spark on three.js, in headless Chromium, looks as the export says that it does.

The viewer comes with ``npm ci --ignore-scripts --prefix tests/splat_viewer``; screenshots stay in test-artefacts/.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from closeup_ns.studio.export import Splats, Viewer, write_ply
from closeup_ns.views.opengl import frame_of
from closeup_ns.views.psnr import psnr
from closeup_ns.views.view import View, look_at
from tests.browser import WEBGL, Browser, browser

pytestmark = pytest.mark.slow
SITE = Path(__file__).parents[1] / "splat_viewer"
LEAST, WRONG_AT_MOST = 40.0, 35.0
"""PSNR in dB of a file as it should be, and of one that is wrong. The viewer rounds colours and cuts Gaussians off."""
BACKGROUND = torch.tensor([0.1, 0.2, 0.3])
SPARK: tuple[Viewer, ...] = ("antialiased", "classic")
"""The kinds of viewer that Spark can be."""


def scene(count: int = 900) -> Splats:
    """Gaussians of all shapes and colours in a ball, some of them smaller than a pixel."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    means = torch.nn.functional.normalize(normal(count, 3)) * torch.rand(count, 1, generator=generator) ** (1 / 3)
    return Splats(
        means=means,
        quats=normal(count, 4),
        scales=-4.4 + 0.8 * normal(count, 3),
        opacities=1.5 * normal(count, 1),
        features_dc=3 * torch.rand(count, 3, generator=generator) - 1.5,
        features_rest=0.1 * normal(count, 15, 3),
    )


def seen_from() -> View:
    """A camera that is tilted, with its principal point off the middle."""
    K = torch.tensor([[400.0, 0, 190], [0, 400, 160], [0, 0, 1]])
    up = torch.tensor([0.3, 0.2, 1.0])
    return look_at(torch.tensor([1.1, -2.3, 0.7]), torch.tensor([0.1, 0.0, -0.05]), up, K, 400, 300)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@dataclass
class Page:
    """The viewer, served from a folder."""

    window: Browser
    folder: Path
    url: str

    def show(self, splats: Splats, viewer: Viewer, name: str) -> Tensor:
        """What it shows of a file with these Gaussians [H, W, 3]."""
        view = seen_from()
        count = write_ply(splats, self.folder / f"{name}.ply", viewer)
        self.window.emulate(view.width, view.height)
        self.window.open(self.url)
        self.window.wait_for("return Boolean(window.show)")
        self.window.run(
            "const told = result => { window.told = String(result) }; window.show(...arguments).then(told, told)",
            f"{name}.ply", frame_of(view), BACKGROUND.tolist(), viewer == "antialiased",
        )  # fmt: skip
        assert self.window.wait_for("return window.told") == str(count)
        with Image.open(self.window.screenshot(f"exported-{name}")) as picture:
            return torch.from_numpy(np.asarray(picture.convert("RGB")) / 255.0).float()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    if not (SITE / "node_modules").is_dir():
        pytest.skip("the viewer is not here: npm ci --ignore-scripts --prefix tests/splat_viewer")
    folder = tmp_path_factory.mktemp("site")
    for part in ("index.html", "node_modules"):
        (folder / part).symlink_to(SITE / part)
    with (
        browser(tmp_path_factory.mktemp("browser") / "profile", more=WEBGL) as window,
        ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as server,
    ):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Page(window, folder, f"http://127.0.0.1:{server.server_port}/index.html")
        server.shutdown()


@pytest.mark.parametrize("viewer", SPARK)
def test_the_viewer_shows_what_the_export_says_that_it_would(page: Page, viewer: Viewer) -> None:
    splats = scene()
    shown = page.show(splats, viewer, viewer)
    likeness = {kind: psnr(shown, splats.draw(seen_from(), BACKGROUND, kind)) for kind in SPARK}
    print(f"shown for {viewer}, PSNR in dB: {', '.join(f'{v:.2f} of the {k} pixel' for k, v in likeness.items())}")
    assert likeness[viewer] > LEAST
    assert max(likeness, key=lambda kind: likeness[kind]) == viewer


def to_linear(features_dc: Tensor) -> Tensor:
    """Constant colours as if the viewer's were linear light."""
    return ((0.5 + 0.2821 * features_dc).clamp(0, 1) ** 2.2 - 0.5) / 0.2821


WRONG: dict[str, Callable[[Splats], Splats]] = {
    "axis": lambda s: replace(s, means=s.means[:, [0, 2, 1]]),
    "quaternion": lambda s: replace(s, quats=s.quats.roll(-1, 1)),
    "color": lambda s: replace(s, features_dc=to_linear(s.features_dc)),
    "harmonics": lambda s: replace(s, features_rest=s.features_rest.transpose(1, 2).reshape(-1, 15, 3)),
    "opacity": lambda s: replace(s, opacities=s.opacities.sigmoid()),
}
"""Files as they are written by mistake."""


@pytest.mark.parametrize("mistake", WRONG)
def test_a_file_that_is_wrong_falls_below_the_threshold(page: Page, mistake: str) -> None:
    right = scene()
    shown = page.show(WRONG[mistake](right), "antialiased", f"wrong-{mistake}")
    likeness = psnr(shown, right.draw(seen_from(), BACKGROUND, "antialiased"))
    print(f"shown with its {mistake} wrong, PSNR: {likeness:.2f} dB")
    assert likeness < WRONG_AT_MOST
