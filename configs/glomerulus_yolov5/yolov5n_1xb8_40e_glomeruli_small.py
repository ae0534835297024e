"""Glomeruli by YOLOv5 N from scratch, for two cores: tiles of 448 px at 2 um per pixel.

Jung et al., "Glomerular Detection for Diagnosis of Lupus Nephritis using Deep Learning", trains L and XL from
pretrained weights on tiles of 1600 x 1200 px; it names no rates and no augmentation. Momentum, clipping and
mosaic are those that release 7.0 is documented with. A step takes 8 tiles, where the release gathers 64: there are few.
Rate, decay and average are chosen: 0.03 and 5e-4 at each of these steps, three and eight times the release's of a tile.

Command: python tools/train.py configs/glomerulus_yolov5/yolov5n_1xb8_40e_glomeruli_small.py
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
    from .._base_.models.yolov5_n import model
    from .._base_.schedules.detection_small_40e import (
        optim_wrapper,
        param_scheduler,
        test_cfg,
        train_cfg,
        val_cfg,
    )

# (N, 3, 448, 448) -> maps (N, 64, 56, 56), (N, 128, 28, 28), (N, 256, 14, 14) -> 3 anchors a cell, 6 numbers each
model_input = dict(tile_size=(448, 448), mpp=2.0, mpp_tolerance=0.1, resize=dict(kind="mpp"))
default_hooks.update(checkpoint=dict(**default_hooks["checkpoint"], save_best="ap", rule="greater"))
custom_hooks = [
    *custom_hooks,
    dict(type=EMAHook, ema_type=MomentumAnnealingEMA, momentum=0.01, gamma=10, update_buffers=True),
]
study = "glomerulus_yolov5"
task = "detection"
