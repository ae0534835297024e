"""Breast tiles, benign, ADH or DCIS, by patient. `label_fraction` of training and of validation keep their labels."""

from albumentations import D4, ColorJitter, RandomCrop
from mmengine.dataset import DefaultSampler, default_collate
from mmpretrain.datasets.transforms import PackInputs

from pathzoo.datasets.breast_tiles import BreastTiles
from pathzoo.datasets.sampling import SeededSampler
from pathzoo.datasets.transforms import Albumentations, CenterCropOrPad, LoadTile, ResizeToMpp, StainJitter
from pathzoo.evaluation.metrics import ClassificationMetric

_meta_keys = ("item", "img_path", "patient", "slide", "sample_idx", "ori_shape", "img_shape")
_dataset = dict(
    type=BreastTiles,
    data_root="data/breast_tiles",
    ann_file="tiles.csv",
    split=dict(
        scheme="patient_ratio",
        ratios=dict(train=0.64, val=0.16, test=0.2),  # what is not tested is split 8:2, as in the study
        seed=0,
        label_fraction=1.0,
        val_label_fraction=1.0,
        label_balance="equal",
        label_grouping="image",
    ),
    on_bad_image="error",
)
_train_pipeline = [
    dict(type=LoadTile),
    dict(type=ResizeToMpp, mpp=0.5, tolerance=0.0),
    dict(
        type=Albumentations,
        transforms=[
            dict(type=RandomCrop, height=224, width=224, pad_if_needed=True, fill=255),
            dict(type=D4, p=1.0),  # the eight symmetries of the square: tissue has no upright
            dict(type=StainJitter, p=0.8),
            dict(type=ColorJitter, brightness=0.1, contrast=0.1, saturation=0.0, hue=0.0, p=0.5),
        ],
    ),
    dict(type=PackInputs, meta_keys=_meta_keys),
]
_test_pipeline = [
    dict(type=LoadTile),
    dict(type=ResizeToMpp, mpp=0.5, tolerance=0.0),
    dict(type=CenterCropOrPad, size=224),
    dict(type=PackInputs, meta_keys=_meta_keys),
]
_loader = dict(num_workers=4, persistent_workers=True, collate_fn=dict(type=default_collate))

train_dataloader = dict(
    **_loader,
    batch_size=32,
    sampler=dict(type=SeededSampler, shuffle=True, samples_per_epoch=None),
    dataset=dict(**_dataset, subset="train", seed=0, pipeline=_train_pipeline),
)
val_dataloader = dict(
    **_loader,
    batch_size=64,
    sampler=dict(type=DefaultSampler, shuffle=False),
    dataset=dict(**_dataset, subset="val", pipeline=_test_pipeline),
)
test_dataloader = dict(
    **_loader,
    batch_size=64,
    sampler=dict(type=DefaultSampler, shuffle=False),
    dataset=dict(**_dataset, subset="test", pipeline=_test_pipeline),
)
val_evaluator = dict(type=ClassificationMetric, level="tile", n_bootstrap=0)
test_evaluator = dict(type=ClassificationMetric, level="tile", n_bootstrap=1000)
# `--cfg-options fold=3` reaches every place that stands here.
parameters = dict(
    mpp=["model_input.mpp", *(f"{_part}_dataloader.dataset.pipeline.1.mpp" for _part in ("train", "val", "test"))],
    ann_file=[f"{_part}_dataloader.dataset.ann_file" for _part in ("train", "val", "test")],
    data_root=[f"{_part}_dataloader.dataset.data_root" for _part in ("train", "val", "test")],
    # Of validation too: who has few labels has few to choose an epoch by.
    label_fraction=[
        f"{_part}_dataloader.dataset.split.{_key}"
        for _part in ("train", "val", "test")
        for _key in ("label_fraction", "val_label_fraction")
    ],
    split_seed=[f"{_part}_dataloader.dataset.split.seed" for _part in ("train", "val", "test")],
    split=[f"{_part}_dataloader.dataset.split" for _part in ("train", "val", "test")],
    on_bad_image=[f"{_part}_dataloader.dataset.on_bad_image" for _part in ("train", "val", "test")],
    samples_per_epoch=["train_dataloader.sampler.samples_per_epoch"],
    parent=["model.backbone.pretrained"],
    seed=["randomness.seed", "train_dataloader.dataset.seed"],
)
