"""SimCLR on tiles without labels, whose views are made of whole batches by the model, on its device.

For a GPU that waits for its views. They are those of the config without `-batchedviews`: equal in distribution and, of
tiles as large as `window`, within a few grey levels the same in training.
Small: ResNet-10t from scratch, for two cores.
Command: python tools/train.py configs/simclr/CONFIG --cfg-options source=DIR, this file for CONFIG.
Result: README.md.
"""

from mmengine.config import read_base
from mmpretrain.models import NonLinearNeck

from pathzoo.engine.hooks import CollapseMonitor
from pathzoo.models import BatchedViews, NTXentHead, SimCLR, TimmBackbone

with read_base():
    from .._base_.datasets.unlabelled_tiles_whole_small import (
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
    from .._base_.schedules.pretext_small_60e import (
        auto_scale_lr,
        optim_wrapper,
        param_scheduler,
        test_cfg,
        train_cfg,
        val_cfg,
    )

model = dict(
    type=SimCLR,
    data_preprocessor=dict(
        type=BatchedViews,
        size=48,
        n_views=2,
        zoom=(0.8, 1.25),
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
    ),  # tiles (N, 3, 64, 64) uint8 RGB -> two views (N, 3, 48, 48) float
    backbone=dict(
        type=TimmBackbone,
        name="resnet10t",
        pretrained=None,  # or a run's checkpoint, a published model: parent=FILE
    ),  # -> (2N, 512, 2, 2)
    neck=dict(
        type=NonLinearNeck,
        in_channels=512,
        hid_channels=256,
        out_channels=64,
        num_layers=2,
        norm_cfg=dict(type="BN1d"),
    ),  # -> (2N, 64)
    head=dict(type=NTXentHead, temperature=0.2),
)
model_input = dict(tile_size=(64, 64), mpp=1.0, mpp_tolerance=0.1, resize=dict(kind="mpp"))

default_hooks.update(checkpoint=dict(**default_hooks["checkpoint"], save_best="loss", rule="less"))
custom_hooks.append(dict(type=CollapseMonitor, interval=10))
study = "simclr"
task = "representation"
