"""RTMDet M (Lyu et al., arXiv:2212.07784), one class, of mmdet's own parts; from scratch.

As mmdet's rtmdet_m configuration, but pictures are RGB (mean and std stand in that order) and no normalisation is
synchronised between processes. Boxes to be ignored are background to its loss.
"""

from mmdet.models import CSPNeXt, CSPNeXtPAFPN, DetDataPreprocessor, GIoULoss, QualityFocalLoss, RTMDet, RTMDetSepBNHead
from mmdet.models.task_modules import DistancePointBBoxCoder, DynamicSoftLabelAssigner, MlvlPointGenerator
from torch.nn import BatchNorm2d, SiLU

model = dict(
    type=RTMDet,
    use_syncbn=False,
    data_preprocessor=dict(
        type=DetDataPreprocessor,
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=False,
        pad_size_divisor=32,
        pad_value=0,  # after normalising: the mean's grey, 114 or near to it
    ),  # (N, 3, H, W) uint8 RGB -> float, sides that 32 divides
    backbone=dict(
        type=CSPNeXt,
        deepen_factor=0.67,
        widen_factor=0.75,
        channel_attention=True,
        norm_cfg=dict(type=BatchNorm2d),
        act_cfg=dict(type=SiLU, inplace=True),
    ),
    neck=dict(
        type=CSPNeXtPAFPN,
        in_channels=(192, 384, 768),
        out_channels=192,
        num_csp_blocks=2,
        norm_cfg=dict(type=BatchNorm2d),
        act_cfg=dict(type=SiLU, inplace=True),
    ),
    bbox_head=dict(
        type=RTMDetSepBNHead,
        num_classes=1,
        in_channels=192,
        feat_channels=192,
        stacked_convs=2,
        anchor_generator=dict(type=MlvlPointGenerator, offset=0, strides=[8, 16, 32]),
        bbox_coder=dict(type=DistancePointBBoxCoder),
        loss_cls=dict(type=QualityFocalLoss, use_sigmoid=True, beta=2.0, loss_weight=1.0),
        loss_bbox=dict(type=GIoULoss, loss_weight=2.0),
        with_objectness=False,
        exp_on_reg=True,
        norm_cfg=dict(type=BatchNorm2d),
        act_cfg=dict(type=SiLU, inplace=True),
    ),
    train_cfg=dict(assigner=dict(type=DynamicSoftLabelAssigner, topk=13), allowed_border=-1, pos_weight=-1),
    test_cfg=dict(
        score_thr=0.001, nms=dict(type="nms", iou_threshold=0.65), nms_pre=30000, min_bbox_size=0, max_per_img=300
    ),
)
