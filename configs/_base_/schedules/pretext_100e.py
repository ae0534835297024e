"""A pretext task for 100 epochs, as study 2 has it: rate 3e-4; the epoch with the lowest validation loss is kept.

The study names neither optimizer nor batch; AdamW, 5 epochs of warm-up and cosine to zero are ours.
"""

from mmengine.optim import CosineAnnealingLR, LinearLR, OptimWrapper
from mmengine.runner import EpochBasedTrainLoop, ValLoop
from torch.optim import AdamW

optim_wrapper = dict(
    type=OptimWrapper,
    optimizer=dict(type=AdamW, lr=3e-4, weight_decay=1e-4),
)
param_scheduler = [
    dict(type=LinearLR, start_factor=0.01, by_epoch=True, begin=0, end=5, convert_to_iter_based=True),
    dict(type=CosineAnnealingLR, by_epoch=True, begin=5, end=100, T_max=95, convert_to_iter_based=True),
]
train_cfg = dict(type=EpochBasedTrainLoop, max_epochs=100, val_interval=1)
val_cfg = dict(type=ValLoop)
test_cfg = None
auto_scale_lr = dict(enable=False, base_batch_size=64)
