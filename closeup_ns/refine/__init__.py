"""Refiners of rendered close-ups, and the checks of what they return."""
