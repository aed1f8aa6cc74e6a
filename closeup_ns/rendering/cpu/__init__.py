"""Our CPU kernels behind the same interface as gsplat."""
