"""Section 4.3 of the paper: what a round plans, refines, judges, injects and trains on."""
