"""Glomeruli by RTMDet tiny from scratch, for two cores: a peer of yolov5n_1xb8_40e_glomeruli_small.py.

The study has no such arm. Tiles, augmentation, steps and averaging are those of YOLOv5 N here; optimizer, its course
and the loss are RTMDet's own (Lyu et al., "RTMDet: An Empirical Study of Designing Real-Time Object Detectors",
arXiv:2212.07784).

Command: python tools/train.py configs/glomerulus_yolov5/rtmdet-tiny_1xb8_40e_glomeruli_small.py
Result: README.md here.
"""

from mmengine.config import read_base
from mmengine.hooks import EMAHook
from mmengine.model import MomentumAnnealingEMA

with read_base():
    from .._base_.datasets.glomeruli_small import (
        parameters,
        test_dataloader,
        test_evaluator,
        train_dataloader,
        val_dataloader,
        val_evaluator,
    )
    from .._base_.default_runtime import (
        custom_hooks,
        default_hooks,
        default_scope,
        env_cfg,
        load_from,
        log_level,
        log_processor,
        randomness,
        resume,
        runner_type,
    )
    from .._base_.models.rtmdet_tiny import model
    from .._base_.schedules.detection_adamw_small_40e import (
        auto_scale_lr,
        optim_wrapper,
        param_scheduler,
        test_cfg,
        train_cfg,
        val_cfg,
    )

# (N, 3, 448, 448) -> maps (N, 96, 56, 56), (N, 96, 28, 28), (N, 96, 14, 14) -> a score and 4 distances in each cell
model_input = dict(tile_size=(448, 448), mpp=2.0, mpp_tolerance=0.1, resize=dict(kind="mpp"))
default_hooks.update(checkpoint=dict(**default_hooks["checkpoint"], save_best="ap", rule="greater"))
custom_hooks = [
    *custom_hooks,
    dict(type=EMAHook, ema_type=MomentumAnnealingEMA, momentum=0.01, gamma=10, update_buffers=True),
]
study = "glomerulus_yolov5"
task = "detection"
