"""The phantom BreakHis cohort at 40X on two cores: ResNet-10t from scratch; what `make demo` trains.

A phantom frame is 350 x 230 px of 0.98 um. This shows that the whole path runs, and nothing about real tissue.
Command: python tools/demo.py draws the cohort and runs this config.
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
    from .._base_.datasets.phantom_small import (
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
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        to_rgb=False,
    ),  # (N, 3, 224, 224) uint8 RGB -> float
    backbone=dict(
        type=TimmBackbone,
        name="resnet10t",
        pretrained=None,  # or a file with timm's key names: --cfg-options model.backbone.pretrained=FILE
    ),  # -> (N, 512, 7, 7)
    neck=dict(type=GlobalAveragePooling),  # -> (N, 512)
    head=dict(
        type=LinearClsHead, num_classes=2, in_channels=512, loss=dict(type=CrossEntropyLoss, loss_weight=1.0)
    ),  # -> (N, 2)
)
model_input = dict(tile_size=(224, 224), mpp=0.98, mpp_tolerance=0.1, resize=dict(kind="mpp"))

default_hooks.update(checkpoint=dict(**default_hooks["checkpoint"], save_best="nll", rule="less"))
study = "breakhis_xception"
task = "classification"
