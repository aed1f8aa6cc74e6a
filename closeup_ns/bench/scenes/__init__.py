"""What a protocol says, and its scenes prepared: what is trained on, where it is looked at, the truth apart."""
