"""The phantom BreakHis cohort at 40X: as `breakhis_small.py`, at the phantom's own 0.98 um per pixel, crops of 224 px.

Loading is cheap at this size and cores are few, so the main process loads.
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
    data_root="work_dirs/demo/data",
    magnification=40,
    task="binary",
    split=dict(scheme="patient_kfold", k=5, fold=0, seed=0),
    on_bad_image="error",
)
_train_pipeline = [
    dict(type=LoadTile),
    dict(type=ResizeToMpp, mpp=0.98, tolerance=0.0),
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
    dict(type=ResizeToMpp, mpp=0.98, tolerance=0.0),
    dict(type=CenterCropOrPad, size=224),
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
