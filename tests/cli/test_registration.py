"""nerfstudio finds the methods and the dataparser, whichever of its modules is imported first."""

from __future__ import annotations

import subprocess
import sys

import pytest

METHODS = ("closeup-gs", "closeup-gs-quick", "closeup-gs-2dgs", "closeup-splatfacto")


@pytest.mark.integration
@pytest.mark.parametrize("first", ["closeup_ns.method_config", "nerfstudio.data.datamanagers.full_images_datamanager"])
def test_every_order_of_import_registers_everything(first: str) -> None:
    """nerfstudio loads plugins in the middle of its own import, where a circular import hides until it is installed."""
    code = (
        f"import {first}\n"
        "from nerfstudio.configs.method_configs import all_methods\n"
        "from nerfstudio.configs.dataparser_configs import all_dataparsers\n"
        f"assert set({METHODS}) <= set(all_methods), sorted(all_methods)\n"
        "assert 'closeup-data' in all_dataparsers, sorted(all_dataparsers)\n"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert finished.returncode == 0, finished.stderr
