"""Forty epochs of detection from scratch, for two cores: SGD, 3 epochs of warm-up, cosine to a hundredth.

A gradient's norm is cut at 10, as in YOLOv5's release 7.0; a step of 8 tiles is a sum of 8, the release's one of 64,
which takes 0.01. Of 0.01, 0.03 and 0.05 for the few steps here 0.03 was best: README.md of glomerulus_yolov5.
Since the loss is a sum, the rate holds for any batch: there is nothing for --auto-scale-lr.
"""

from mmengine.optim import CosineAnnealingLR, LinearLR, OptimWrapper
from mmengine.runner import EpochBasedTrainLoop, TestLoop, ValLoop
from torch.optim import SGD

optim_wrapper = dict(
    type=OptimWrapper,
    optimizer=dict(type=SGD, lr=0.03, momentum=0.937, weight_decay=5e-4, nesterov=True),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
    clip_grad=dict(max_norm=10.0, norm_type=2),
)
param_scheduler = [
    dict(type=LinearLR, start_factor=0.01, by_epoch=True, begin=0, end=3, convert_to_iter_based=True),
    dict(type=CosineAnnealingLR, by_epoch=True, begin=3, end=40, T_max=37, eta_min=3e-4, convert_to_iter_based=True),
]
train_cfg = dict(type=EpochBasedTrainLoop, max_epochs=40, val_interval=2)
val_cfg = dict(type=ValLoop)
test_cfg = dict(type=TestLoop)
