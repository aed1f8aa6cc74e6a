"""When the network is asked and how much it sees of the warp then (research dossier on See3D, 2.4 and 2.6)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from closeup_ns.errors import RefinerError

if TYPE_CHECKING:
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

SCHEDULER_FILE = "scheduler/scheduler_config.json"
TRAIN_STEPS = 1000
"""Noise levels in training. The weights below are given for these, so no other number is accepted."""
SPACINGS = ("trailing", "leading")

_KNEE = 60
"""The level of the visual condition (timestep 300) below which its weight falls to nothing."""
_BETA_SCHEDULES = ("scaled_linear", "linear", "squaredcos_cap_v2")
_PREDICTION_TYPES = ("v_prediction", "sample")


def timesteps(steps: int, train: int = TRAIN_STEPS, spacing: str = "trailing") -> list[int]:
    """Timesteps of the denoising, falling, for ``steps`` asked for.

    ``trailing`` is the published list, range(999, 0, -(999 // steps)): 53 of them for 50 and 31 for 30. ``leading`` is
    Stable Diffusion's own, ``steps`` multiples of train // steps plus one.

    Raises:
        ValueError: ``steps`` outside 1 to train - 1, or an unknown spacing.
    """
    if not 1 <= steps < train:
        raise ValueError(f"steps must be from 1 to {train - 1}, not {steps}")
    if spacing == "trailing":
        return list(range(train - 1, 0, -((train - 1) // steps)))
    if spacing == "leading":
        stride = train // steps
        return [index * stride + 1 for index in reversed(range(steps))]
    raise ValueError(f"spacing must be one of {', '.join(SPACINGS)}, not {spacing!r}")


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


def published_spacing(config: Mapping[str, Any]) -> str:
    """How the timesteps are spaced: the value of ``timestep_scaling``, a key of See3D's own; trailing without it.

    diffusers' own key ``timestep_spacing`` is not looked at: the published program does not either, and every saved
    scheduler carries diffusers' default there.
    """
    return config.get("timestep_scaling", "trailing")


def check_scheduler(config: Mapping[str, Any]) -> None:
    """Refuses a scheduler's JSON that this sampling is not written for, or that diverges.

    Raises:
        RefinerError: names the file, the key and the value.
    """
    if "prediction_type" not in config or config["prediction_type"] == "epsilon":
        told = "has no prediction_type, which means 'epsilon'" if "prediction_type" not in config else (
            "has prediction_type 'epsilon'")  # fmt: skip
        raise RefinerError(
            f"{SCHEDULER_FILE} {told}: with zero terminal SNR, as these weights are sampled, the first step divides by "
            f"zero. Expected one of {', '.join(_PREDICTION_TYPES)}: is this See3D's folder?"
        )
    known: dict[str, tuple[Any, ...]] = {
        "prediction_type": _PREDICTION_TYPES, "beta_schedule": _BETA_SCHEDULES, "num_train_timesteps": (TRAIN_STEPS,),
        "timestep_scaling": SPACINGS, "trained_betas": (None,), "thresholding": (False,),
        "set_alpha_to_one": (True, False),
    }  # fmt: skip
    for key, values in known.items():
        if key in config and config[key] not in values:
            expected = ", ".join(repr(value) for value in values)
            raise RefinerError(f"{SCHEDULER_FILE} has {key} {config[key]!r}; this sampling is written for {expected}")
    for key in ("beta_start", "beta_end"):
        beta = config.get(key, 0.01)
        if not isinstance(beta, (int, float)) or not 0 < beta < 1:
            raise RefinerError(f"{SCHEDULER_FILE} has {key} {beta!r}, which must lie between 0 and 1")


def make_scheduler(config: Mapping[str, Any]) -> DDIMScheduler:
    """The scheduler of a published folder's JSON, as the published program sets it up: zero terminal SNR, no clipping.

    Zero terminal SNR is demanded by the program and not read: diffusers writes False, its default, into every saved
    JSON. ``scheduler.config.timestep_spacing`` afterwards tells what ``timesteps`` wants.

    Raises:
        RefinerError: as ``check_scheduler``.
    """
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    check_scheduler(config)
    taken = {"prediction_type", "beta_schedule", "beta_start", "beta_end", "set_alpha_to_one"}
    return DDIMScheduler(
        **{key: value for key, value in config.items() if key in taken}, num_train_timesteps=TRAIN_STEPS,
        rescale_betas_zero_snr=True, clip_sample=False, steps_offset=1, timestep_spacing=published_spacing(config),  # pyright: ignore[reportArgumentType]
    )  # fmt: skip
