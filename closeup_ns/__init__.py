"""closeup-ns: Gaussian splats that hold up when the camera comes close."""

import os
import sys

if "torch" not in sys.modules:
    # Read once, when torch loads its OpenMP runtime. Threads that spin while waiting are 8x slower on a busy machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
