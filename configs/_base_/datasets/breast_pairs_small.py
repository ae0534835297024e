"""Patches of `breast_lesions_small` as pairs of label map and picture for a translator.

Small: patches of 64 px for two cores; validated is how a drawn picture differs from the real one of its label map.
Colours stay as they are: what is drawn is to look like the stain of its patients. Segmentation jitters it afterwards.
"""

from albumentations import D4
from mmengine.config import read_base

from pathzoo.datasets.transforms import Albumentations
from pathzoo.evaluation.metrics import ImageQuality

with read_base():
    from .breast_lesions_small import parameters, test_dataloader, train_dataloader, val_dataloader

train_dataloader.update(batch_size=4)
train_dataloader["dataset"].update(
    pipeline=[
        # rotations by 90 degrees and flips of both: tissue has no upright
        dict(type=Albumentations, transforms=[dict(type=D4, p=1.0)]),
        train_dataloader["dataset"]["pipeline"][-1],  # packs
    ],
)
val_evaluator = dict(type=ImageQuality, n_bootstrap=0)
test_evaluator = dict(type=ImageQuality, n_bootstrap=1000)
