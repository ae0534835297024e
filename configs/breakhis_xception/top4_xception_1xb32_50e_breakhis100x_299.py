"""BreakHis at 100X, benign or malignant: Xception, top 4 layers fine-tuned.

Paper: Kim and Yoon, "Cancer Histopathological Image Classification based on Convolutional Neural Network":
98.30 % accuracy, split by image. This config splits by patient; the paper's split is
`--cfg-options split="{'scheme': 'by_image_leaky', 'seed': 0}"`.
Command: python tools/train.py configs/breakhis_xception/top4_xception_1xb32_50e_breakhis100x_299.py
Result: not run, until Xception's ImageNet weights are at hand; see README.md here.
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
    from .._base_.datasets.breakhis import (
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
    from .._base_.schedules.finetune_50e import (
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
    ),  # (N, 3, 299, 299) uint8 RGB -> float
    backbone=dict(
        type=TimmBackbone,
        name="legacy_xception",
        pretrained="imagenet",
        # The top 4 layers, counted from the output: the classifier (in `head`), conv4, conv3 and block12, each with its
        # normalisation. Everything below is frozen and stays in eval mode.
        trainable=("block12", "conv3", "bn3", "conv4", "bn4"),
    ),  # -> (N, 2048, 10, 10)
    neck=dict(type=GlobalAveragePooling),  # -> (N, 2048)
    head=dict(
        type=LinearClsHead, num_classes=2, in_channels=2048, loss=dict(type=CrossEntropyLoss, loss_weight=1.0)
    ),  # -> (N, 2)
)
train_dataloader["dataset"]["magnification"] = 100
val_dataloader["dataset"]["magnification"] = 100
test_dataloader["dataset"]["magnification"] = 100
model_input = dict(tile_size=(299, 299), mpp=0.20 * 460 / 299, mpp_tolerance=0.1, resize=dict(kind="mpp"))

default_hooks.update(checkpoint=dict(**default_hooks["checkpoint"], save_best="nll", rule="less"))
study = "breakhis_xception"
task = "classification"
