"""The tiles of `glomeruli` for two cores: 448 px at 2 um per pixel, read in the training process."""

from mmengine.config import read_base

with read_base():
    from .glomeruli import (
        parameters,
        test_dataloader,
        test_evaluator,
        train_dataloader,
        val_dataloader,
        val_evaluator,
    )

_side = 448
train_dataloader["dataset"]["pipeline"][0].update(size=_side)
for _loader in (val_dataloader, test_dataloader):
    _loader["dataset"]["pipeline"][0].update(size=_side)
for _loader in (train_dataloader, val_dataloader, test_dataloader):
    _loader.update(num_workers=0, persistent_workers=False, pin_memory=False)
    _loader["dataset"].update(data_root="work_dirs/phantom_biopsies/tiles")
