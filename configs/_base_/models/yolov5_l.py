"""YOLOv5 L (release 7.0), one class, anchors as fitted to COCO at 640 pixels; from scratch.

A leaf sets the head's `num_classes` and `anchors` (tools/analysis_tools/fit_anchors.py) and, to answer with more or
fewer boxes, `test_cfg`.
"""

from mmdet.models import DetDataPreprocessor, SingleStageDetector

from pathzoo.models import YOLOv5Backbone, YOLOv5Head, YOLOv5PAFPN

model = dict(
    type=SingleStageDetector,
    data_preprocessor=dict(
        type=DetDataPreprocessor,
        mean=[0.0, 0.0, 0.0],
        std=[255.0, 255.0, 255.0],
        bgr_to_rgb=False,
        pad_size_divisor=32,
        pad_value=114 / 255,  # it fills up after dividing
    ),  # (N, 3, H, W) uint8 RGB -> 0..1, sides that 32 divides
    backbone=dict(type=YOLOv5Backbone, deepen=1.0, widen=1.0),
    neck=dict(type=YOLOv5PAFPN, channels=(256, 512, 1024), deepen=1.0),
    bbox_head=dict(
        type=YOLOv5Head,
        num_classes=1,
        in_channels=(256, 512, 1024),
        anchors=[
            [(10, 13), (16, 30), (33, 23)],
            [(30, 61), (62, 45), (59, 119)],
            [(116, 90), (156, 198), (373, 326)],
        ],
    ),
    test_cfg=dict(score_thr=0.001, nms=dict(type="nms", iou_threshold=0.45), nms_pre=30000, max_per_img=300),
)
