"""Thirty short epochs on two cores: Adam at study 5's rate of 0.001, which falls to zero along a cosine.

The study's rate stays; so short a training would otherwise end wherever its last steps happen to throw it.
"""

from mmengine.optim import CosineAnnealingLR, OptimWrapper
from mmengine.runner import EpochBasedTrainLoop, TestLoop, ValLoop
from torch.optim import Adam

optim_wrapper = dict(
    type=OptimWrapper,
    optimizer=dict(type=Adam, lr=0.001),
)
param_scheduler = [dict(type=CosineAnnealingLR, by_epoch=True, begin=0, end=30, T_max=30, convert_to_iter_based=True)]
train_cfg = dict(type=EpochBasedTrainLoop, max_epochs=30, val_interval=5)
val_cfg = dict(type=ValLoop)
test_cfg = dict(type=TestLoop)
auto_scale_lr = dict(enable=False, base_batch_size=8)
