"""Glomeruli by YOLOv5 S, for a small GPU: data and course of the study's L and XL, but from scratch.

What it learns is under no other licence than the data's. From COCO weights instead (AGPL-3.0): as yolov5l's docstring
says, with load_from=FILE.

8 tiles keep 11 GiB of maps for the gradient in float32, about half with --amp: counted, not measured. With less memory,
at the same rate:

    train_dataloader.batch_size=2 optim_wrapper.optimizer.weight_decay=1.5625e-5 optim_wrapper.clip_grad.max_norm=2.5
    custom_hooks.2.momentum=3.125e-6 custom_hooks.2.gamma=64000

Command: python tools/train.py configs/glomerulus_yolov5/yolov5s_1xb8_300e_glomeruli_1600x1200.py --amp
Result: README.md here.
"""

from mmdet.models.layers import ExpMomentumEMA
from mmengine.config import read_base
from mmengine.hooks import EMAHook

with read_base():
    from .._base_.datasets.glomeruli import (
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
    from .._base_.models.yolov5_s import model
    from .._base_.schedules.detection_300e import (
        optim_wrapper,
        param_scheduler,
        test_cfg,
        train_cfg,
        val_cfg,
    )

# (N, 3, 1216, 1600) -> maps (N, 128, 152, 200), (N, 256, 76, 100), (N, 512, 38, 50)
# -> 3 anchors a cell, 6 numbers each
model_input = dict(tile_size=(1600, 1216), mpp=0.5, mpp_tolerance=0.1, resize=dict(kind="mpp"))
default_hooks.update(checkpoint=dict(**default_hooks["checkpoint"], save_best="ap", rule="greater"))
custom_hooks = [
    *custom_hooks,
    # The release's 1e-4 and 2000 are for steps of 64 tiles.
    dict(type=EMAHook, ema_type=ExpMomentumEMA, momentum=1.25e-5, gamma=16000, update_buffers=True),
]
study = "glomerulus_yolov5"
task = "detection"
