"""What every process that `processes` starts has imported already; this module is for nothing else."""

import importlib

from pathzoo import compat

compat.install()  # before mmpretrain or mmdet, as in conftest.py
for _name in ("apis.test", "apis.train", "datasets", "engine.hooks", "evaluation.metrics", "models"):
    importlib.import_module(f"pathzoo.{_name}")
