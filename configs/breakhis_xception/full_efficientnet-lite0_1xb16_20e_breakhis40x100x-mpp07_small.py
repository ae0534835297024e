"""BreakHis at 40X and 100X brought to 0.7 um per pixel, on two cores: a small classifier that runs over slides.

Command: python tools/train.py configs/breakhis_xception/CONFIG --cfg-options data_root=DIR, this file for CONFIG.
Result: README.md here.
"""

from mmengine.config import read_base
from mmpretrain.models import (
    ClsDataPreprocessor,
    CrossEntropyLoss,
    GlobalAveragePooling,
    ImageClassifier,
    LinearClsHead,
)

from pathzoo.models import TimmBackbone

with read_base():
    from .._base_.datasets.breakhis_mpp07_small import (
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
    from .._base_.schedules.small_20e import (
        auto_scale_lr,
        optim_wrapper,
        param_scheduler,
        test_cfg,
        train_cfg,
        val_cfg,
    )

model = dict(
    type=ImageClassifier,
    data_preprocessor=dict(
        type=ClsDataPreprocessor,
        num_classes=2,
        mean=[127.5, 127.5, 127.5],
        std=[127.5, 127.5, 127.5],
        to_rgb=False,
    ),  # (N, 3, 128, 128) uint8 RGB -> float
    backbone=dict(
        type=TimmBackbone,
        name="tf_efficientnet_lite0",
        pretrained=None,  # or a file with timm's key names: --cfg-options model.backbone.pretrained=FILE
        channels_last=True,
    ),  # -> (N, 1280, 4, 4)
    neck=dict(type=GlobalAveragePooling),  # -> (N, 1280)
    head=dict(
        type=LinearClsHead, num_classes=2, in_channels=1280, loss=dict(type=CrossEntropyLoss, loss_weight=1.0)
    ),  # -> (N, 2)
)
model_input = dict(tile_size=(128, 128), mpp=0.7, mpp_tolerance=0.1, resize=dict(kind="mpp"))

default_hooks.update(checkpoint=dict(**default_hooks["checkpoint"], save_best="nll", rule="less"))
study = "breakhis_xception"
task = "classification"
