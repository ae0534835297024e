"""Two hundred epochs of Pix2Pix: Adam 2e-4 for both networks, falling to zero over the second half.

Isola et al., CVPR 2017, section 3.3, and the second half of their public training script for the fall.
"""

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
        begin=100,
        end=200,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(type=EpochBasedTrainLoop, max_epochs=200, val_interval=10)
val_cfg = dict(type=ValLoop)
test_cfg = dict(type=TestLoop)
