"""300 epochs of detection, as YOLOv5's release 7.0 is documented: SGD at 0.01, warm-up for 3 epochs, cosine to 1e-4.

The release gathers 64 tiles for a step. The loss is a sum over tiles, so that at the same rate steps of 8 tiles go as
far in an epoch: the rate holds for any batch, and there is nothing for --auto-scale-lr. The decay is an eighth of the
release's 5e-4, as there are eight times the steps. A gradient's norm is cut at the release's 10; here it is of a sum of
8 tiles, so that it is cut more rarely. mmengine takes the mean over the batches that it gathers, so that the release's
own step, of 64 tiles, is

    optim_wrapper.accumulative_counts=8 optim_wrapper.optimizer.lr=0.08 param_scheduler.2.eta_min=8e-4
    optim_wrapper.clip_grad.max_norm=1.25

The average (EMA) of the configs takes in, in the end, as much of a tile as the release's, and gets there after as many
tiles; on the way it is shorter, by up to eight times.

Of the release's two courses the cosine is chosen; a straight line is its default. Left out: biases that start the
warm-up at a rate of 0.1.
"""

from mmengine.optim import CosineAnnealingLR, LinearLR, LinearMomentum, OptimWrapper
from mmengine.runner import EpochBasedTrainLoop, TestLoop, ValLoop
from torch.optim import SGD

optim_wrapper = dict(
    type=OptimWrapper,
    optimizer=dict(type=SGD, lr=0.01, momentum=0.937, weight_decay=6.25e-5, nesterov=True),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
    clip_grad=dict(max_norm=10.0, norm_type=2),
)
param_scheduler = [
    dict(type=LinearLR, start_factor=1e-3, by_epoch=True, begin=0, end=3, convert_to_iter_based=True),
    dict(type=LinearMomentum, start_factor=0.8 / 0.937, by_epoch=True, begin=0, end=3, convert_to_iter_based=True),
    dict(type=CosineAnnealingLR, by_epoch=True, begin=3, end=300, T_max=297, eta_min=1e-4, convert_to_iter_based=True),
]
train_cfg = dict(type=EpochBasedTrainLoop, max_epochs=300, val_interval=5)
val_cfg = dict(type=ValLoop)
test_cfg = dict(type=TestLoop)
