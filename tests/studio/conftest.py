"""A tiny capture, and trainers on it."""

from tests.trainers import capture, make_trainer, trainer

__all__ = ["capture", "make_trainer", "trainer"]
