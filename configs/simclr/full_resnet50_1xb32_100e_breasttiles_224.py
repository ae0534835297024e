"""Breast tiles, benign, ADH or DCIS: the last link of a chain, every layer fine-tuned.

Kim and Cho, "Self-supervised learning using different type of data within the domain for small-volume medical data
learning". `parent=FILE` begins with a pretext run's backbone; without it this is the supervised arm. ResNet-50 from
ImageNet weights, as in the study.
Command: python tools/train.py configs/simclr/CONFIG --cfg-options data_root=DIR parent=FILE label_fraction=0.05
Result: README.md.
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
    from .._base_.datasets.breast_tiles import (
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
    from .._base_.schedules.transfer_100e import (
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
        num_classes=3,
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        to_rgb=False,
    ),  # (N, 3, 224, 224) uint8 RGB -> float
    backbone=dict(
        type=TimmBackbone,
        name="resnet50",
        pretrained="imagenet",  # or a run's checkpoint, a published model, a file, None
    ),  # -> (N, 2048, 7, 7)
    neck=dict(type=GlobalAveragePooling),  # -> (N, 2048)
    head=dict(
        type=LinearClsHead, num_classes=3, in_channels=2048, loss=dict(type=CrossEntropyLoss, loss_weight=1.0)
    ),  # -> (N, 3)
)
model_input = dict(tile_size=(224, 224), mpp=0.5, mpp_tolerance=0.1, resize=dict(kind="mpp"))

default_hooks.update(checkpoint=dict(**default_hooks["checkpoint"], save_best="nll", rule="less"))
study = "simclr"
task = "classification"
