"""The trainers of the training room's tests."""

from __future__ import annotations

from tests.trainers import capture, make_trainer, trainer

__all__ = ["capture", "make_trainer", "trainer"]
