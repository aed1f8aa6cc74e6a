"""What a refined view is worth: the gate, the photographs' footprint, masks."""
