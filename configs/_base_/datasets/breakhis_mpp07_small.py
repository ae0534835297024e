"""BreakHis for two cores at one physical resolution: 40X and 100X frames at 0.7 um per pixel, crops of 128 px.

Not finer, since 40X frames that a source downsized to 500 px have 0.69 um per pixel and are not enlarged. A 100X frame
is 140 x 92 um, so 131 px high here: crops of 128 px (90 um) fit frames of both magnifications. 200X and 400X frames are
too small for it. The model that comes out runs over slides of 0.7 um per pixel or finer.
"""

from albumentations import D4, ColorJitter, RandomCrop
from mmengine.dataset import DefaultSampler, default_collate
from mmpretrain.datasets.transforms import PackInputs

from pathzoo.datasets.breakhis import BreakHis
from pathzoo.datasets.sampling import SeededSampler
from pathzoo.datasets.transforms import Albumentations, CenterCropOrPad, LoadTile, ResizeToMpp, StainJitter
from pathzoo.evaluation.metrics import ClassificationMetric

_meta_keys = ("item", "img_path", "patient", "slide", "ori_shape", "img_shape")
_dataset = dict(
    type=BreakHis,
    data_root="data/breakhis",
    magnification=(40, 100),
    task="binary",
    split=dict(scheme="patient_kfold", k=5, fold=0, seed=0),
    on_bad_image="error",
)
_train_pipeline = [
    dict(type=LoadTile),
    dict(type=ResizeToMpp, mpp=0.7, tolerance=0.0),
    dict(
        type=Albumentations,
        transforms=[
            dict(type=RandomCrop, height=128, width=128, pad_if_needed=True, fill=255),
            dict(type=D4, p=1.0),  # the eight symmetries of the square: tissue has no upright
            dict(type=StainJitter, p=0.8),
            dict(type=ColorJitter, brightness=0.1, contrast=0.1, saturation=0.0, hue=0.0, p=0.5),
        ],
    ),
    dict(type=PackInputs, meta_keys=_meta_keys),
]
_test_pipeline = [
    dict(type=LoadTile),
    dict(type=ResizeToMpp, mpp=0.7, tolerance=0.0),
    dict(type=CenterCropOrPad, size=128),
    dict(type=PackInputs, meta_keys=_meta_keys),
]
_loader = dict(num_workers=0, collate_fn=dict(type=default_collate))

train_dataloader = dict(
    **_loader,
    batch_size=16,
    sampler=dict(type=SeededSampler, shuffle=True),
    dataset=dict(**_dataset, subset="train", seed=0, pipeline=_train_pipeline),
)
val_dataloader = dict(
    **_loader,
    batch_size=16,
    sampler=dict(type=DefaultSampler, shuffle=False),
    dataset=dict(**_dataset, subset="val", pipeline=_test_pipeline),
)
test_dataloader = dict(
    **_loader,
    batch_size=16,
    sampler=dict(type=DefaultSampler, shuffle=False),
    dataset=dict(**_dataset, subset="test", pipeline=_test_pipeline),
)
val_evaluator = dict(type=ClassificationMetric, n_bootstrap=0)
test_evaluator = dict(type=ClassificationMetric, n_bootstrap=1000)
# `--cfg-options fold=3` reaches every place that stands here.
parameters = dict(
    data_root=[f"{_part}_dataloader.dataset.data_root" for _part in ("train", "val", "test")],
    fold=[f"{_part}_dataloader.dataset.split.fold" for _part in ("train", "val", "test")],
    split_seed=[f"{_part}_dataloader.dataset.split.seed" for _part in ("train", "val", "test")],
    split=[f"{_part}_dataloader.dataset.split" for _part in ("train", "val", "test")],
    on_bad_image=[f"{_part}_dataloader.dataset.on_bad_image" for _part in ("train", "val", "test")],
    seed=["randomness.seed", "train_dataloader.dataset.seed"],
)
