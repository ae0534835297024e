"""YOLOv5 N (release 7.0): as L with other depth and width."""

from mmengine.config import read_base

with read_base():
    from .yolov5_l import model

model.backbone.update(deepen=0.33, widen=0.25)
model.neck.update(channels=(64, 128, 256), deepen=0.33)
model.bbox_head.update(in_channels=(64, 128, 256))
