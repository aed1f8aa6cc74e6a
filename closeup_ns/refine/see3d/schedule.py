"""Timesteps of the denoising and the weight of the warp at each (research dossier on See3D, 2.4 and 2.6)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from closeup_ns.errors import RefinerError

if TYPE_CHECKING:
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

TRAIN_STEPS = 1000
"""Noise levels in training. The weights below are given for these, so no other number is accepted."""
SPACINGS = ("trailing", "leading")

_KNEE = 60
"""The level of the visual condition (timestep 300) below which its weight falls to nothing."""


def timesteps(steps: int, spacing: str = "trailing") -> list[int]:
    """Timesteps of the denoising, falling, for ``steps`` (1 to 999) asked for.

    ``trailing`` is the published list, range(999, 0, -(999 // steps)): 53 of them for 50 and 31 for 30. ``leading`` is
    Stable Diffusion's own, ``steps`` multiples of 1000 // steps plus one.
    """
    if spacing == "trailing":
        return list(range(TRAIN_STEPS - 1, 0, -((TRAIN_STEPS - 1) // steps)))
    return [index * (TRAIN_STEPS // steps) + 1 for index in reversed(range(steps))]


def visual_level(timestep: int) -> int:
    """t': the noise level of the warp at ``timestep``, of the same table, a fifth of it."""
    return timestep // 5


def visual_weight(timestep: int) -> float:
    """W_t: the share of the noised warp in the visual condition; the rest is the noisy latent itself.

    Nearly 1 at the start, 0.8 at timestep 300, and then quickly nothing: the warp dictates structure, not detail.
    """
    level = visual_level(timestep)
    straight, falling = 1 - 0.2 * (200 - level) / 140, 0.8 * math.exp(-0.075 * (_KNEE - level))
    weight = straight if level >= _KNEE else falling
    return min(max(weight, 0.0), 1.0)


def make_scheduler(config: Mapping[str, Any]) -> DDIMScheduler:
    """The scheduler of a published folder's JSON, as the published program sets it up: zero terminal SNR, no clipping.

    Zero terminal SNR is demanded by the program and not read: diffusers writes False, its default, into every saved
    JSON. Nor is diffusers' ``timestep_spacing``, for the same reason; ``timestep_scaling``, a key of See3D's own, is.
    ``scheduler.config.timestep_spacing`` afterwards tells what ``timesteps`` wants.

    Raises:
        RefinerError: a setting that this sampling is not written for; the key and its value are named.
    """
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    # With epsilon and zero terminal SNR the first step divides by zero.
    allowed: dict[str, tuple[Any, ...]] = {
        "prediction_type": ("v_prediction", "sample"),
        "num_train_timesteps": (TRAIN_STEPS,),
        "timestep_scaling": SPACINGS,
    }
    filled = {
        "prediction_type": "epsilon",
        "num_train_timesteps": TRAIN_STEPS,
        "timestep_scaling": "trailing",
        **config,
    }
    for key, values in allowed.items():
        if filled[key] not in values:
            expected = " or ".join(repr(value) for value in values)
            raise RefinerError(
                f"scheduler_config.json has {key} {filled[key]!r}, See3D's has {expected}: is this its folder?"
            )
    taken = {"prediction_type", "beta_schedule", "beta_start", "beta_end", "set_alpha_to_one"}
    return DDIMScheduler(
        **{key: value for key, value in config.items() if key in taken},
        num_train_timesteps=TRAIN_STEPS,
        rescale_betas_zero_snr=True,
        clip_sample=False,
        steps_offset=1,
        timestep_spacing=filled["timestep_scaling"],
    )
