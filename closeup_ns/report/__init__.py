"""One self-contained page about a run, written from its files alone."""
