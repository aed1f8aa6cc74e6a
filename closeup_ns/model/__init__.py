"""The splats: splatfacto's subclass, its pixel, losses, regularisers and densification."""
