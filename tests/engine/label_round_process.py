"""What each process of tests/engine/test_self_training_processes.py runs under torchrun: rounds with a fixed teacher.

python label_round_process.py DATA OUT
"""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from self_training_fakes import SILENT, FakePseudoLabelled, TinySegmentor, plan_of

from pathzoo.engine.distributed import init_gloo, leave_group
from pathzoo.engine.self_training import checked_policy, make_round
from pathzoo.engine.self_training.teacher import frozen_copy
from pathzoo.errors import DataError

data, out = map(Path, sys.argv[1:])
torch.set_num_threads(1)
init_gloo("pytorch")
model = TinySegmentor(seed=0)
model.norm.running_mean += dist.get_rank()  # statistics are each process's own
policy = checked_policy({"type": "quantile", "keep": 0.5})

dataset = FakePseudoLabelled(data)
folder = make_round(plan_of(out / "whole", dataset, policy=policy), frozen_copy(model), SILENT)
assert model.training and float(model.norm.running_mean[0]) == dist.get_rank()
folder.check(dataset, "a" * 32)
(out / f"reads_{dist.get_rank()}").write_text(" ".join(map(str, dataset.unlabelled.reads)))

# What one process cannot do, all hear of; the others' regions are kept, and the round goes on.
broken = FakePseudoLabelled(data)
broken.unlabelled.fail_at = {3: DataError("region 3 is broken")}
for plan in (plan_of(out / "broken", broken, policy=policy),):
    try:
        make_round(plan, frozen_copy(model), SILENT)
    except DataError as error:
        (out / f"error_{dist.get_rank()}").write_text(str(error))
    broken.unlabelled.fail_at = {}
    broken.unlabelled.reads.clear()
    make_round(plan, frozen_copy(model), SILENT)
(out / f"again_{dist.get_rank()}").write_text(" ".join(map(str, broken.unlabelled.reads)))

# Another run's folder: the main process sees it, all refuse.
try:
    make_round(plan_of(out / "whole", dataset, run="b" * 32), frozen_copy(TinySegmentor(seed=1)), SILENT)
except DataError as error:
    (out / f"refused_{dist.get_rank()}").write_text(str(error))
leave_group()
