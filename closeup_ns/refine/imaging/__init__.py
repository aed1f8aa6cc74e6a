"""Image operations that refiners share: colour, filters, sizes."""
