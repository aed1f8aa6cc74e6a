"""The cameras of an evaluation; they are read by closeup_ns.data.eval_cameras, which training may import too."""

from closeup_ns.data.eval_cameras import EvalCamera, photographs_of, read_cameras, write_cameras

__all__ = ["EvalCamera", "photographs_of", "read_cameras", "write_cameras"]
