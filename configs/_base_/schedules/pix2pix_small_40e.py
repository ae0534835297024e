"""Forty epochs of Pix2Pix for two cores: Adam 2e-4 for both networks, falling to zero over the second half."""

from mmengine.optim import LinearLR, OptimWrapper
from mmengine.runner import EpochBasedTrainLoop, TestLoop, ValLoop
from torch.optim import Adam

from pathzoo.engine.optimizers import MultiOptimWrapperConstructor

_adam = dict(type=OptimWrapper, optimizer=dict(type=Adam, lr=2e-4, betas=(0.5, 0.999)))
optim_wrapper = dict(constructor=MultiOptimWrapperConstructor, generators=_adam, discriminators=_adam)
param_scheduler = [
    dict(
        type=LinearLR,
        start_factor=1.0,
        end_factor=0.0,
        by_epoch=True,
        begin=20,
        end=40,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(type=EpochBasedTrainLoop, max_epochs=40, val_interval=4)
val_cfg = dict(type=ValLoop)
test_cfg = dict(type=TestLoop)
