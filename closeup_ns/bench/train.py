"""ns-train, also where LPIPS's weights are neither cached nor to be downloaded: ``python -m closeup_ns.bench.train``.

Every model of nerfstudio loads them when it is built, for an evaluation that a bench does without. Here they are loaded
when they are asked for, so that the methods of nerfstudio can be benched offline.
"""

from __future__ import annotations

from closeup_ns.model.lazy_lpips import lazy_lpips

if __name__ == "__main__":
    from nerfstudio.scripts.train import entrypoint

    with lazy_lpips():
        entrypoint()
