"""What stands between a backbone's pyramid and a head."""

from pathzoo.models.necks.yolov5_pafpn import YOLOv5PAFPN

__all__ = ["YOLOv5PAFPN"]
