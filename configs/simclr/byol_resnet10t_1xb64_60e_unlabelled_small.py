"""BYOL on tiles without labels: a peer of SimCLR that needs no negatives, so that small batches hurt it less.

mmpretrain's algorithm (Grill et al., Bootstrap Your Own Latent, NeurIPS 2020); it has no validation, so the last
epoch is what is kept, and `collapse.csv` says whether the vectors stay apart. Small: ResNet-10t from scratch, for two
cores.
Command: python tools/train.py configs/simclr/CONFIG --cfg-options source=DIR, this file for CONFIG.
Result: README.md.
"""

from mmengine.config import read_base
from mmpretrain.models import BYOL, CosineSimilarityLoss, LatentPredictHead, NonLinearNeck, SelfSupDataPreprocessor

from pathzoo.engine.hooks import CollapseMonitor
from pathzoo.models import TimmBackbone

with read_base():
    from .._base_.datasets.unlabelled_tiles_small import (
        parameters,
        test_dataloader,
        test_evaluator,
        train_dataloader,
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
    )

model = dict(
    type=BYOL,
    data_preprocessor=dict(
        type=SelfSupDataPreprocessor,
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        to_rgb=False,
    ),  # two views (N, 3, 48, 48) uint8 RGB -> float
    backbone=dict(
        type=TimmBackbone,
        name="resnet10t",
        pretrained=None,
    ),  # -> (N, 512, 2, 2) of each view
    neck=dict(
        type=NonLinearNeck,
        in_channels=512,
        hid_channels=256,
        out_channels=64,
        num_layers=2,
        with_last_bn=False,
        norm_cfg=dict(type="BN1d"),
    ),  # -> (N, 64)
    head=dict(
        type=LatentPredictHead,
        loss=dict(type=CosineSimilarityLoss),
        predictor=dict(
            type=NonLinearNeck,
            in_channels=64,
            hid_channels=64,
            out_channels=64,
            num_layers=2,
            with_avg_pool=False,
            with_last_bn=False,
            with_last_bias=True,
            norm_cfg=dict(type="BN1d"),
        ),  # -> (N, 64), to be like the other view's vector
    ),
)
model_input = dict(tile_size=(64, 64), mpp=1.0, mpp_tolerance=0.1, resize=dict(kind="mpp"))

# Without validation the places that parameters reach are those of training alone. No `parent`: mmpretrain copies the
# target network before any weights are loaded, so it would start at random beside a backbone that does not.
val_dataloader = None
val_evaluator = None
val_cfg = None
parameters = {
    _name: [_place for _place in _places if not _place.startswith("val_")]
    for _name, _places in parameters.items()
    if _name != "parent"
}

custom_hooks.append(dict(type=CollapseMonitor, interval=10))
study = "simclr"
task = "representation"
