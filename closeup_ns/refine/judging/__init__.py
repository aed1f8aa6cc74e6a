"""What a refined view is worth: the gate, the detail that it lost, the photographs' footprint."""
