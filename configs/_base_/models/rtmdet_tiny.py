"""RTMDet tiny: as M with other depth and width, and distances without the exponential."""

from mmengine.config import read_base

with read_base():
    from .rtmdet_m import model

model.backbone.update(deepen_factor=0.167, widen_factor=0.375)
model.neck.update(in_channels=(96, 192, 384), out_channels=96, num_csp_blocks=1)
model.bbox_head.update(in_channels=96, feat_channels=96, exp_on_reg=False)
