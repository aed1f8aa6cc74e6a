"""Refiners that are programs of their own."""
