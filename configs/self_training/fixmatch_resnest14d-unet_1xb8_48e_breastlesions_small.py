"""Breast lesions, 35 % labelled: consistency with a mean teacher (FixMatch), ResNeSt-14d U-Net for two cores.

Lee, Park, Lee, "Semi-Supervised Learning for Pathological Image Analysis": ResNeSt encoder, U-Net decoder; depth,
split and training settings are not stated there and are our choice.

Command: python tools/train.py configs/self_training/fixmatch_resnest14d-unet_1xb8_48e_breastlesions_small.py
Result: README.md here.
"""

from mmengine.config import read_base
from mmengine.hooks import EMAHook
from mmengine.model import MomentumAnnealingEMA
from mmseg.models import SegDataPreProcessor

from pathzoo.models import ConsistencySegmentor, DiceLoss, PixelCrossEntropy, TimmBackbone, UNetHead

with read_base():
    from .._base_.datasets.breast_lesions_online_small import (
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
    from .._base_.schedules.segmentation_small_48e import (
        auto_scale_lr,
        optim_wrapper,
        param_scheduler,
        test_cfg,
        train_cfg,
        val_cfg,
    )

model = dict(
    type=ConsistencySegmentor,
    data_preprocessor=dict(
        type=SegDataPreProcessor,
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=False,
        size=(64, 64),
        pad_val=0,
        seg_pad_val=255,
    ),  # (N, 3, 64, 64) uint8 RGB -> float
    backbone=dict(
        type=TimmBackbone,
        name="resnest14d",
        pretrained=None,
        channels_last=True,  # a seventh off a step on a CPU; on a GPU measure first
        out_indices=(0, 1, 2, 3),  # up to stride 16: the last stage is most of the weights and little of the result
    ),  # -> (N, 64, 32, 32), (N, 256, 16, 16), (N, 512, 8, 8), (N, 1024, 4, 4)
    decode_head=dict(
        type=UNetHead,
        in_channels=(64, 256, 512, 1024),
        decoder_channels=(48, 32, 24, 16),
        num_classes=3,
        loss_decode=[
            dict(type=PixelCrossEntropy, loss_name="loss_ce", loss_weight=1.0),
            dict(type=DiceLoss, loss_name="loss_dice", loss_weight=1.0),
        ],
    ),  # -> (N, 3, 64, 64)
    threshold=0.95,
    momentum=0.01,
    consistency_weight=0.5,
    train_cfg=dict(),
    test_cfg=dict(mode="whole"),
)
model_input = dict(tile_size=(64, 64), mpp=2.0, mpp_tolerance=0.1, resize=dict(kind="mpp"))
custom_hooks = [
    *custom_hooks,
    # In every arm: what is tested is the average of the weights.
    dict(type=EMAHook, ema_type=MomentumAnnealingEMA, momentum=0.01, gamma=10, update_buffers=True),
]
study = "self_training"
task = "segmentation"
