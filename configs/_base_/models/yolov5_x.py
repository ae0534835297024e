"""YOLOv5 X (release 7.0): as L with other depth and width."""

from mmengine.config import read_base

with read_base():
    from .yolov5_l import model

model.backbone.update(deepen=1.33, widen=1.25)
model.neck.update(channels=(320, 640, 1280), deepen=1.33)
model.bbox_head.update(in_channels=(320, 640, 1280))
