"""The slices of `ct_slices` for two cores: a phantom's, 128 x 128 px, read by the main process at next to no cost."""

from mmengine.config import read_base

with read_base():
    from .ct_slices import (
        parameters,
        test_dataloader,
        test_evaluator,
        train_dataloader,
        val_dataloader,
        val_evaluator,
    )

for _loader in (train_dataloader, val_dataloader, test_dataloader):
    _loader.update(num_workers=0, persistent_workers=False, pin_memory=False)
    _loader["dataset"].update(data_root="work_dirs/phantom_slices")
train_dataloader["sampler"].update(samples_per_epoch=256)
