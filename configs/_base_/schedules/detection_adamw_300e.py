"""300 epochs of detection by AdamW, as RTMDet has it: warm-up, flat, cosine to a twentieth from half-way.

Its rate, 0.004, is for 256 tiles a step; for 8, and from weights that were trained already, it is divided by the root
of 32: a choice, not tried.
"""

from mmengine.optim import CosineAnnealingLR, LinearLR, OptimWrapper
from mmengine.runner import EpochBasedTrainLoop, TestLoop, ValLoop
from torch.optim import AdamW

optim_wrapper = dict(
    type=OptimWrapper,
    optimizer=dict(type=AdamW, lr=7e-4, weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0, bypass_duplicate=True),  # its levels share weights
)
param_scheduler = [
    dict(type=LinearLR, start_factor=1e-5, by_epoch=False, begin=0, end=1000),
    dict(
        type=CosineAnnealingLR,
        by_epoch=True,
        begin=150,
        end=300,
        T_max=150,
        eta_min=3.5e-5,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(type=EpochBasedTrainLoop, max_epochs=300, val_interval=5)
val_cfg = dict(type=ValLoop)
test_cfg = dict(type=TestLoop)
auto_scale_lr = dict(enable=False, base_batch_size=8)
