"""Weights of other people's models: what a file holds, whether it is whole, and how it gets here."""
