"""YOLOv5 M (release 7.0): as L with other depth and width."""

from mmengine.config import read_base

with read_base():
    from .yolov5_l import model

model.backbone.update(deepen=0.67, widen=0.75)
model.neck.update(channels=(192, 384, 768), deepen=0.67)
model.bbox_head.update(in_channels=(192, 384, 768))
