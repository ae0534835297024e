"""Tiles of kidney biopsies with a box round every glomerulus, as annotations_to_boxes.py cuts them.

Tiles of 1600 x 1200 px that share a third with their neighbours, as in the study. Mosaic, scale, flips and colour in
training; in evaluation the tile as it is, filled up to what the network's strides divide. Split by patient; the study
splits 4:1 by slide and validates on nobody.
"""

from albumentations import ColorJitter, HorizontalFlip, VerticalFlip
from mmdet.datasets.transforms import PackDetInputs
from mmengine.dataset import DefaultSampler, pseudo_collate

from pathzoo.datasets.detection_tiles import TileDetection
from pathzoo.datasets.sampling import SeededSampler
from pathzoo.datasets.transforms import Albumentations, LetterBox, Mosaic, StainJitter
from pathzoo.evaluation.metrics import BoxMetric

_dataset = dict(
    type=TileDetection,
    data_root="data/glomeruli",
    ann_file="tiles.json",
    split=dict(scheme="patient_ratio", ratios=dict(train=0.64, val=0.16, test=0.2), seed=0),
    on_bad_image="error",
    on_bad_box="error",
)
# As pathzoo.datasets.detection_tiles.DET_META_KEYS; spelled out, so that the config's copy in a work folder has it too.
_meta_keys = (
    "img_id",
    "img_path",
    "ori_shape",
    "img_shape",
    "scale_factor",
    "item",
    "patient",
    "slide",
    "x",
    "y",
    "downsample",
    "mpp",
    "sample_idx",
)
_train_pipeline = [
    dict(type=Mosaic, size=(1600, 1216), scale=(0.5, 1.5), translate=0.1),
    dict(
        type=Albumentations,
        transforms=[
            dict(type=HorizontalFlip, p=0.5),
            dict(type=VerticalFlip, p=0.5),  # tissue has no upright
            dict(type=StainJitter, p=0.8),
            dict(type=ColorJitter, brightness=0.1, contrast=0.1, saturation=0.0, hue=0.0, p=0.5),
        ],
    ),
    dict(type=PackDetInputs, meta_keys=_meta_keys),
]
_test_pipeline = [
    dict(type=LetterBox, size=(1600, 1216)),
    dict(type=PackDetInputs, meta_keys=_meta_keys),
]
_loader = dict(num_workers=4, persistent_workers=True, pin_memory=True, collate_fn=dict(type=pseudo_collate))

train_dataloader = dict(
    **_loader,
    batch_size=8,
    sampler=dict(type=SeededSampler, shuffle=True, samples_per_epoch=None),
    dataset=dict(**_dataset, subset="train", background_rate=0.25, seed=0, pipeline=_train_pipeline),
)
val_dataloader = dict(
    **_loader,
    batch_size=8,
    sampler=dict(type=DefaultSampler, shuffle=False),
    dataset=dict(**_dataset, subset="val", pipeline=_test_pipeline, test_mode=True),
)
test_dataloader = dict(
    **_loader,
    batch_size=8,
    sampler=dict(type=DefaultSampler, shuffle=False),
    dataset=dict(**_dataset, subset="test", pipeline=_test_pipeline, test_mode=True),
)
val_evaluator = dict(type=BoxMetric, n_bootstrap=0)
test_evaluator = dict(type=BoxMetric, n_bootstrap=1000)
# `--cfg-options data_root=DIR` reaches every place that stands here.
_sets = tuple(f"{_part}_dataloader.dataset" for _part in ("train", "val", "test"))
parameters = dict(
    data_root=[f"{_set}.data_root" for _set in _sets],
    ann_file=[f"{_set}.ann_file" for _set in _sets],
    split=[f"{_set}.split" for _set in _sets],
    split_seed=[f"{_set}.split.seed" for _set in _sets],
    on_bad_image=[f"{_set}.on_bad_image" for _set in _sets],
    on_bad_box=[f"{_set}.on_bad_box" for _set in _sets],
    samples_per_epoch=["train_dataloader.sampler.samples_per_epoch"],
    background_rate=["train_dataloader.dataset.background_rate"],
    target_recall=["val_evaluator.target_recall", "test_evaluator.target_recall"],
    seed=["randomness.seed", "train_dataloader.dataset.seed"],
)
