"""What sharpens refined views: optional, after any refiner, always matched back in colour."""
