"""Memory that one step frees serves the next one."""

from __future__ import annotations

import subprocess
import sys

import pytest

_FAULTS = """
import resource, sys, torch
from closeup_ns.studio.memory import keep_freed_memory
if sys.argv[1] == "keep" and not keep_freed_memory():
    sys.exit(3)
def work():
    for _ in range(20):
        torch.empty(10_000_000).fill_(1.0)  # 40 MB: above what glibc keeps by itself
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only glibc is told")
def test_large_tensors_are_not_paged_in_again() -> None:
    faults = {}
    for mode in ("plain", "keep"):
        result = subprocess.run([sys.executable, "-c", _FAULTS, mode], capture_output=True, text=True, check=False)
        if result.returncode == 3:
            pytest.skip("this C library has no mallopt")
        assert result.returncode == 0, result.stderr
        faults[mode] = int(result.stdout)
    assert faults["keep"] < 0.1 * faults["plain"]
