"""A hundred epochs of Adam at a rate of 0.001, as study 5 has it: it names no other setting, so the rate stays."""

from mmengine.optim import OptimWrapper
from mmengine.runner import EpochBasedTrainLoop, TestLoop, ValLoop
from torch.optim import Adam

optim_wrapper = dict(
    type=OptimWrapper,
    optimizer=dict(type=Adam, lr=0.001),
)
param_scheduler = []
train_cfg = dict(type=EpochBasedTrainLoop, max_epochs=100, val_interval=5)
val_cfg = dict(type=ValLoop)
test_cfg = dict(type=TestLoop)
auto_scale_lr = dict(enable=False, base_batch_size=8)
