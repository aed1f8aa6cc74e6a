"""Tests that need a GPU are skipped without one: `make check-gpu` runs them and prints their figures."""

from __future__ import annotations

import pytest
import torch

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
