"""config.yml without the classes that it names."""

from __future__ import annotations

from pathlib import Path

import pytest

from closeup_ns.errors import CheckpointError
from closeup_ns.report.config_file import option, read_config
from tests.report.made_up import write_config

HARMFUL = "method_name: m\npipeline: !!python/object/apply:os.system ['touch {}']\ntimestamp: t\nvis: viewer\n"


def test_objects_become_plain_values(tmp_path: Path) -> None:
    config = read_config(write_config(tmp_path, rounds=3))
    assert config["_target"] == "closeup_ns.studio.trainer.CloseupTrainer"
    assert config["data"] == "/captures/flower & <friends>"
    assert option(config, "pipeline.datamanager.data") == config["data"]
    assert option(config, "pipeline.schedule.rounds") == 3
    assert option(config, "pipeline.nothing.rounds") is None and option(config, "seed.x") is None


def test_nothing_that_the_file_names_is_run(tmp_path: Path) -> None:
    (tmp_path / "config.yml").write_text(HARMFUL.format(tmp_path / "touched"))
    read_config(tmp_path / "config.yml")
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("name", ["method_name", "pipeline", "timestamp", "vis"])
def test_a_config_that_lacks_what_nerfstudio_writes_is_refused(tmp_path: Path, name: str) -> None:
    lines = HARMFUL.splitlines()
    (tmp_path / "config.yml").write_text("\n".join(line for line in lines if not line.startswith(name)))
    with pytest.raises(CheckpointError, match=f"lacks '{name}'"):
        read_config(tmp_path / "config.yml")
