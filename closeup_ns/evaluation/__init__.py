"""Scoring a run, of any nerfstudio method, or a folder of renders, at given cameras."""
