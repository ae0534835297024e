"""Thirty short epochs on two cores: Adam at 0.003, three times study 5's rate, which falls to zero along a cosine."""

from mmengine.optim import CosineAnnealingLR, OptimWrapper
from mmengine.runner import EpochBasedTrainLoop, TestLoop, ValLoop
from torch.optim import Adam

optim_wrapper = dict(
    type=OptimWrapper,
    optimizer=dict(type=Adam, lr=0.003),
)
param_scheduler = [dict(type=CosineAnnealingLR, by_epoch=True, begin=0, end=30, T_max=30, convert_to_iter_based=True)]
train_cfg = dict(type=EpochBasedTrainLoop, max_epochs=30, val_interval=5)
val_cfg = dict(type=ValLoop)
test_cfg = dict(type=TestLoop)
auto_scale_lr = dict(enable=False, base_batch_size=8)
