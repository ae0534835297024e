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
    "pathzoo.LabelToImage": "pathzoo.models:LabelToImage",
    "pathzoo.PairPreprocessor": "pathzoo.models:PairPreprocessor",
    "pathzoo.PixelCrossEntropy": "pathzoo.models.losses.cross_entropy:PixelCrossEntropy",
    "pathzoo.TimmBackbone": "pathzoo.models.backbones.timm_backbone:TimmBackbone",
    "pathzoo.UNetHead": "pathzoo.models:UNetHead",  # by the package, which readies mmseg's import
    "pathzoo.YOLOv5Backbone": "pathzoo.models.backbones.yolov5_backbone:YOLOv5Backbone",
    "pathzoo.YOLOv5Head": "pathzoo.models:YOLOv5Head",
    "pathzoo.YOLOv5PAFPN": "pathzoo.models.necks:YOLOv5PAFPN",
    "mmagic.UnetGenerator": "pathzoo.models:UnetGenerator",  # by the package, which readies mmagic's import
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
        FPN FPNHead FCNHead PSPHead ASPPHead DepthwiseSeparableASPPHead UPerHead
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
BUILT_IN["mmseg.InterpConv"] = "mmseg.models.backbones.unet:InterpConv"


class PublishedAs(NamedTuple):
    """What a model of training is published as, and what is left out then: the rest is the same network."""

    name: str
    without: tuple[str, ...] = ()  # arguments
    #: Of a pretext model the backbone stays, with a pooling behind it: vectors, whatever they were learnt by.
    backbone_only: bool = False


#: Whole models that are published without what training alone needs, most of them under another's name.
TRAINED_AS = (
    {
        "pathzoo.ConsistencySegmentor": PublishedAs(
            "mmseg.EncoderDecoder", without=("threshold", "momentum", "consistency_weight", "strong")
        ),
    }
    | {
        # Its discriminator judges in training alone.
        "pathzoo.LabelToImage": PublishedAs(
            "pathzoo.LabelToImage", without=("discriminator", "pixel_loss_weight", "discriminator_steps")
        )
    }
    | {
        name: PublishedAs("mmpretrain.ImageClassifier", backbone_only=True)
        for name in (
            "pathzoo.SimCLR",
            "pathzoo.RotationPred",
            "mmpretrain.SimCLR",
            "mmpretrain.BYOL",
            "mmpretrain.SimSiam",
        )
    }
)

#: Tensors of checkpoints under these prefixes serve training alone; they are not published.
TRAINING_TENSORS = ("teacher.", "discriminators.")

#: Allowed words that are no component: hosts read this exact text in the place of a `type`. (mmcv evaluates the name of
#: its suppression as Python, so that no text of a manifest may reach it; mmagic asks whether its norm is "IN".)
WORDS = {"mmcv.nms": "nms", "mmcv.IN": "IN"}

#: What host configs call some of them.
HOST_NAMES = {
    "BN": "torch.BatchNorm2d",
    "BN2d": "torch.BatchNorm2d",
    "SyncBN": "torch.SyncBatchNorm",
    "GN": "torch.GroupNorm",
    "IN": "mmcv.IN",
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
    "translation": {"pathzoo.LabelToImage"},
}

#: Key path of the block whose `num_classes` (`n_classes` of a translator) is the number of a model's classes.
HEADS = {
    "classification": "head",
    "segmentation": "decode_head",
    "detection": "bbox_head",
    "translation": "data_preprocessor",
}
