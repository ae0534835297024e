"""RotNet on the breast tiles that are classified later.

Kim and Cho, "Self-supervised learning using different type of data within the domain for small-volume medical data
learning": four copies of each picture, which quarter turn is it? ResNet-50 from ImageNet weights, as in the study.
Views have 176 px: enlarged by 0.8, the least zoom, one needs 220 of a tile's 224 px.
Command: python tools/train.py configs/rotation_pred/CONFIG --cfg-options data_root=DIR, this file for CONFIG.
Result: README.md.
"""

from mmengine.config import read_base
from mmpretrain.models import GlobalAveragePooling, SelfSupDataPreprocessor

from pathzoo.engine.hooks import CollapseMonitor
from pathzoo.models import RotationHead, RotationPred, TimmBackbone

with read_base():
    from .._base_.datasets.breast_tiles_upright import (
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
    from .._base_.schedules.pretext_100e import (
        auto_scale_lr,
        optim_wrapper,
        param_scheduler,
        test_cfg,
        train_cfg,
        val_cfg,
    )

model = dict(
    type=RotationPred,
    data_preprocessor=dict(
        type=SelfSupDataPreprocessor,
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        to_rgb=False,
    ),  # (N, 3, 176, 176) uint8 RGB -> float
    rotations="all",  # (4N, 3, 176, 176)
    backbone=dict(
        type=TimmBackbone,
        name="resnet50",
        pretrained="imagenet",  # or a run's checkpoint, a published model, a file, None
    ),  # -> (4N, 2048, 6, 6)
    neck=dict(type=GlobalAveragePooling),  # -> (4N, 2048)
    head=dict(type=RotationHead, in_channels=2048),  # -> (4N, 4)
)
model_input = dict(tile_size=(224, 224), mpp=0.5, mpp_tolerance=0.1, resize=dict(kind="mpp"))

default_hooks.update(checkpoint=dict(**default_hooks["checkpoint"], save_best="loss", rule="less"))
custom_hooks.append(dict(type=CollapseMonitor, interval=50))
study = "rotation_pred"
task = "representation"
