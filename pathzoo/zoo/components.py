"""The components that a published model may name, each with the place where it lives. Data only: imports nothing.

A host's component gets in when something of pathzoo needs it and it neither fetches, opens nor evaluates what a config
gives it. Plug-ins add their own (`pathzoo.zoo.allowlist.register_allowed`).
"""

from typing import NamedTuple

#: scope.Name -> "module:attribute". `torch.*` are layers that hosts take in norm_cfg, act_cfg and conv_cfg.
BUILT_IN = {
    "pathzoo.BlobDetector": "pathzoo.models.rule_based:BlobDetector",
    "pathzoo.ColorThresholdClassifier": "pathzoo.models.rule_based:ColorThresholdClassifier",
    "pathzoo.ColorThresholdSegmenter": "pathzoo.models.rule_based:ColorThresholdSegmenter",
    "pathzoo.DiceLoss": "pathzoo.models.losses.dice:DiceLoss",
    "pathzoo.PixelCrossEntropy": "pathzoo.models.losses.cross_entropy:PixelCrossEntropy",
    "pathzoo.TimmBackbone": "pathzoo.models.backbones.timm_backbone:TimmBackbone",
    "pathzoo.UNetHead": "pathzoo.models:UNetHead",  # by the package, which readies mmseg's import
    "pathzoo.YOLOv5Backbone": "pathzoo.models.backbones.yolov5_backbone:YOLOv5Backbone",
    "pathzoo.YOLOv5Head": "pathzoo.models:YOLOv5Head",
    "pathzoo.YOLOv5PAFPN": "pathzoo.models.necks:YOLOv5PAFPN",
    "mmengine.ImgDataPreprocessor": "mmengine.model:ImgDataPreprocessor",
    "torch.BatchNorm2d": "torch.nn:BatchNorm2d",
    "torch.SyncBatchNorm": "torch.nn:SyncBatchNorm",
    "torch.GroupNorm": "torch.nn:GroupNorm",
    "torch.Conv2d": "torch.nn:Conv2d",
    "torch.ReLU": "torch.nn:ReLU",
    "torch.LeakyReLU": "torch.nn:LeakyReLU",
    "torch.SiLU": "torch.nn:SiLU",
}

_OF_HOSTS = {
    "mmpretrain": """
        ImageClassifier ClsDataPreprocessor GlobalAveragePooling LinearClsHead ResNet MobileNetV2
        CrossEntropyLoss LabelSmoothLoss FocalLoss
    """,
    "mmseg": """
        EncoderDecoder SegDataPreProcessor ResNet ResNetV1c UNet
        FCNHead PSPHead ASPPHead DepthwiseSeparableASPPHead UPerHead
        CrossEntropyLoss DiceLoss FocalLoss TverskyLoss
    """,
    "mmdet": """
        DetDataPreprocessor SingleStageDetector RetinaNet FCOS YOLOX RTMDet ResNet CSPDarknet CSPNeXt
        FPN YOLOXPAFPN CSPNeXtPAFPN RetinaHead FCOSHead YOLOXHead RTMDetSepBNHead
        CrossEntropyLoss FocalLoss QualityFocalLoss L1Loss SmoothL1Loss IoULoss GIoULoss
    """,
}
BUILT_IN |= {f"{host}.{name}": f"{host}.models:{name}" for host, names in _OF_HOSTS.items() for name in names.split()}
for _folder, _name in (
    ("prior_generators", "AnchorGenerator"),
    ("prior_generators", "MlvlPointGenerator"),
    ("coders", "DeltaXYWHBBoxCoder"),
    ("coders", "DistancePointBBoxCoder"),
):
    BUILT_IN[f"mmdet.{_name}"] = f"mmdet.models.task_modules.{_folder}:{_name}"


class PublishedAs(NamedTuple):
    """What a model of training is published as, and what is left out then: the rest is the same network."""

    name: str
    without: tuple[str, ...] = ()  # arguments
    #: Of a pretext model the backbone stays, with a pooling behind it: vectors, whatever they were learnt by.
    backbone_only: bool = False


#: Whole models that differ from another one in training alone: none of these names is ever published.
TRAINED_AS = {
    "pathzoo.ConsistencySegmentor": PublishedAs(
        "mmseg.EncoderDecoder", without=("threshold", "momentum", "consistency_weight", "strong")
    ),
} | {
    name: PublishedAs("mmpretrain.ImageClassifier", backbone_only=True)
    for name in ("pathzoo.SimCLR", "pathzoo.RotationPred", "mmpretrain.SimCLR", "mmpretrain.BYOL", "mmpretrain.SimSiam")
}

#: Tensors of checkpoints under these prefixes serve training alone; they are not published.
TRAINING_TENSORS = ("teacher.",)

#: Allowed words that are no component: hosts read this exact text in the place of a `type`. (mmcv evaluates the name of
#: its suppression as Python, so that no text of a manifest may reach it.)
WORDS = {"mmcv.nms": "nms"}

#: What host configs call some of them.
HOST_NAMES = {
    "BN": "torch.BatchNorm2d",
    "BN2d": "torch.BatchNorm2d",
    "SyncBN": "torch.SyncBatchNorm",
    "GN": "torch.GroupNorm",
    "Conv": "torch.Conv2d",
    "Swish": "torch.SiLU",
    "nms": "mmcv.nms",
}

#: Built-in components that are a whole model of a task; every other one is a part of one.
WHOLE_MODELS = {
    "classification": {"mmpretrain.ImageClassifier", "pathzoo.ColorThresholdClassifier"},
    "segmentation": {"mmseg.EncoderDecoder", "pathzoo.ColorThresholdSegmenter"},
    "detection": {
        "mmdet.SingleStageDetector",
        "mmdet.RetinaNet",
        "mmdet.FCOS",
        "mmdet.YOLOX",
        "mmdet.RTMDet",
        "pathzoo.BlobDetector",
    },
    "representation": {"mmpretrain.ImageClassifier"},
}

#: Key path of the block whose `num_classes` is the number of a model's classes.
HEADS = {"classification": "head", "segmentation": "decode_head", "detection": "bbox_head"}
