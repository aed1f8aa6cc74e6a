"""Tests, importable as `tests`: an installed package of that name (torch-fidelity ships one) would shadow them."""
