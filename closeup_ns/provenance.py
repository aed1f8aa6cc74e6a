"""What made a figure: so that somebody else can make it again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any


def provenance() -> dict[str, Any]:
    """What made these figures: the command, our version, and the commit where the source is a checkout."""
    from importlib.metadata import version

    source = Path(__file__).resolve().parents[1]
    git = ["git", "-C", str(source), "describe", "--always", "--dirty"]
    try:
        found = subprocess.run(git, capture_output=True, text=True, timeout=10, check=False)
        commit = found.stdout.strip() if (source / ".git").exists() else ""
    except OSError:
        commit = ""
    return {"command": " ".join(sys.argv), "closeup_ns": version("closeup-ns"), "commit": commit}
