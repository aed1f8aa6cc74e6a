"""Errors that a user can act on: each message says what is wrong, where, and what to do."""


class CloseupError(RuntimeError):
    """Base class of every error that closeup-ns raises on purpose."""


class DataError(CloseupError):
    """The capture on disk cannot be used: missing, truncated, or inconsistent files."""


class PlanningError(CloseupError):
    """No useful close-up views can be planned for this target and these cameras."""


class RoundStorageError(CloseupError):
    """A round's folder cannot be written or does not belong to this run."""


class CheckpointError(CloseupError):
    """A checkpoint cannot be loaded into this model."""


class RefinerError(CloseupError):
    """A refiner or an enhancer cannot work: weights, packages or options are missing, or do not fit."""


class RefinerOutOfMemory(RefinerError):
    """A pass did not fit into the GPU's memory; a smaller one may."""
