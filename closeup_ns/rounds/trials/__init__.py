"""Decisions that are taken by training for a while: a round's acceptance, the pixel kernel."""
