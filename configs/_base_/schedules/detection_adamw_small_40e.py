"""Forty epochs of detection by AdamW from scratch, for two cores: 3 epochs of warm-up, flat, cosine from half-way.

Rate, decay, its exceptions and the course are RTMDet's, whose rate is for 256 tiles a step. Of 2.5e-4, 1e-3, 4e-3 and
8e-3 it learnt fastest for steps of 8, too: README.md of glomerulus_yolov5.
"""

from mmengine.optim import CosineAnnealingLR, LinearLR, OptimWrapper
from mmengine.runner import EpochBasedTrainLoop, TestLoop, ValLoop
from torch.optim import AdamW

optim_wrapper = dict(
    type=OptimWrapper,
    optimizer=dict(type=AdamW, lr=4e-3, weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0, bypass_duplicate=True),  # its levels share weights
)
param_scheduler = [
    dict(type=LinearLR, start_factor=0.01, by_epoch=True, begin=0, end=3, convert_to_iter_based=True),
    dict(type=CosineAnnealingLR, by_epoch=True, begin=20, end=40, T_max=20, eta_min=2e-4, convert_to_iter_based=True),
]
train_cfg = dict(type=EpochBasedTrainLoop, max_epochs=40, val_interval=2)
val_cfg = dict(type=ValLoop)
test_cfg = dict(type=TestLoop)
auto_scale_lr = dict(enable=False, base_batch_size=8)
