"""The front door: what nerfstudio finds. Every ns-* command imports this module before it loads a run."""

from __future__ import annotations

import torch
from nerfstudio.configs.base_config import MachineConfig, ViewerConfig
from nerfstudio.engine.optimizers import AdamOptimizerConfig
from nerfstudio.engine.schedulers import ExponentialDecaySchedulerConfig
from nerfstudio.plugins.types import MethodSpecification

from closeup_ns.data.dataparser import CloseupDataParserConfig
from closeup_ns.ffmpeg import ensure_ffmpeg_on_path
from closeup_ns.model.model import CloseupModelConfig
from closeup_ns.model.model_2d import Closeup2dgsModelConfig
from closeup_ns.model.optimizers import FusedAdamConfig
from closeup_ns.rounds.schedule import RestartingDecaySchedulerConfig, ScheduleConfig
from closeup_ns.rounds.settings import KernelSearchConfig
from closeup_ns.studio.compatibility import (
    allow_nerfstudio_checkpoints,
    show_errors_as_lines,
    start_without_build_server,
    undistort_fisheye624_upright,
)
from closeup_ns.studio.datamanager import CloseupDatamanagerConfig
from closeup_ns.studio.pipeline import CloseupPipelineConfig
from closeup_ns.studio.trainer import CloseupTrainerConfig

allow_nerfstudio_checkpoints()
start_without_build_server()
undistort_fisheye624_upright()
show_errors_as_lines()
ensure_ffmpeg_on_path()  # ns-render looks for one before anything of ours runs


def _optimizers() -> dict:
    """Splatfacto's learning rates; the position's rate rises again with each round."""
    constant = {"features_dc": 0.0025, "features_rest": 0.0025 / 20, "opacities": 0.05, "scales": 0.005, "quats": 0.001}
    groups = {
        name: {"optimizer": FusedAdamConfig(lr=rate, eps=1e-15), "scheduler": None} for name, rate in constant.items()
    }
    groups["means"] = {
        "optimizer": FusedAdamConfig(lr=1.6e-4, eps=1e-15),
        "scheduler": RestartingDecaySchedulerConfig(lr_final=1.6e-6),
    }
    groups["exposure"] = {
        "optimizer": AdamOptimizerConfig(lr=1e-3, eps=1e-15),
        "scheduler": RestartingDecaySchedulerConfig(lr_final=1e-4),
    }
    groups["camera_opt"] = {
        "optimizer": AdamOptimizerConfig(lr=1e-4, eps=1e-15),
        "scheduler": ExponentialDecaySchedulerConfig(lr_final=5e-7, max_steps=30000),
    }
    groups["bilateral_grid"] = {
        "optimizer": AdamOptimizerConfig(lr=2e-3, eps=1e-15),
        "scheduler": ExponentialDecaySchedulerConfig(lr_final=1e-4, max_steps=30000),
    }
    return groups


def _trainer(
    method: str, schedule: ScheduleConfig, model: CloseupModelConfig, image_size: int = 1600, **pipeline: object
) -> CloseupTrainerConfig:
    parser = CloseupDataParserConfig(max_image_size=image_size)
    return CloseupTrainerConfig(
        method_name=method,
        machine=MachineConfig(device_type="cuda" if torch.cuda.is_available() else "cpu"),
        steps_per_save=2000,
        steps_per_eval_image=schedule.total_steps,
        steps_per_eval_batch=0,
        steps_per_eval_all_images=schedule.total_steps,
        mixed_precision=False,
        pipeline=CloseupPipelineConfig(
            datamanager=CloseupDatamanagerConfig(dataparser=parser),
            model=model,
            schedule=schedule,
            **pipeline,  # type: ignore[arg-type]
        ),
        optimizers=_optimizers(),
        viewer=ViewerConfig(num_rays_per_chunk=1 << 15),
        vis="viewer",
    )


def _quick_model(**changes: object) -> CloseupModelConfig:
    """A tenth of the steps: splatfacto's intervals shrink with them, and the number of Gaussians has a ceiling."""
    settings: dict = dict(
        warmup_length=200,
        refine_every=50,
        resolution_schedule=200,
        num_downscales=2,
        sh_degree_interval=300,
        stop_split_at=2000,
        stop_screen_size_at=400,
        reset_alpha_every=0,
        cull_alpha_thresh=0.02,
        densify_grad_thresh=0.0005,
        max_gaussians=80_000,
    )
    settings.update(changes)
    return CloseupModelConfig(**settings)


_QUICK = dict(base_steps=3000, rounds=3, round_steps=750)
QUICK_IMAGE_SIZE = 1600 if torch.cuda.is_available() else 640
"""Longest image side of the try-out: without a GPU, what trains in minutes on two cores."""

closeup_gs = MethodSpecification(
    config=_trainer("closeup-gs", ScheduleConfig(), CloseupModelConfig()),
    description="Gaussian splats that hold up 3x, 9x and 27x closer than the photographs (Close-up-GS and beyond).",
)

closeup_gs_quick = MethodSpecification(
    config=_trainer("closeup-gs-quick", ScheduleConfig(**_QUICK), _quick_model(), QUICK_IMAGE_SIZE),
    description="closeup-gs with a tenth of the steps: a try-out in minutes, also without a GPU.",
)

closeup_gs_2dgs = MethodSpecification(
    config=_trainer("closeup-gs-2dgs", ScheduleConfig(), Closeup2dgsModelConfig()),
    description="closeup-gs with flat discs held to surfaces (2DGS, the paper's base): for geometry and normals.",
)

closeup_splatfacto = MethodSpecification(
    config=_trainer(
        "closeup-splatfacto",
        ScheduleConfig(base_steps=4500, rounds=0, round_steps=0),
        _quick_model(pixel_variance=0.3, eps2d=1.0, supersample=1, scale_floor=0.0),
        QUICK_IMAGE_SIZE,
        kernel_search=KernelSearchConfig(enabled=False),
    ),
    description="Plain antialiased splatfacto on our rasteriser, for comparison: closeup-gs-quick's steps, no extras.",
)
