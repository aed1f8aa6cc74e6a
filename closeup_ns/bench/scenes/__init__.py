"""Protocols and their scenes on disk: training photographs, test cameras, and the truth in a folder of its own."""
