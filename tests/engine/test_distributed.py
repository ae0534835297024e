"""Two gloo processes against one: the same global batches give the same losses, weights and metrics.

The two have the variables that torchrun sets; tests/apis/test_predict_files.py begins with torchrun itself.
"""

import csv
import json
from pathlib import Path

import numpy as np
import processes
import pytest
import torch
from tiny_run import CONFIG, draw_cohort, tiny_options

from pathzoo.apis.config import load_config
from pathzoo.cli import main
from pathzoo.engine.checkpoint import load_checkpoint_safely
from pathzoo.engine.distributed import init_gloo
from pathzoo.errors import ConfigError

_CHECKOUT = Path(__file__).resolve().parents[2]
_GLOBAL_BATCH = 6
#: Plain SGD: Adam divides by the gradient's size, so that rounding in a gradient near 0 becomes a whole step.
_SGD = {"type": "torch.optim.SGD", "lr": 0.05, "momentum": 0.9}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Path:
    """18 images to train on, 6 to validate and 6 to test. Read only."""
    return draw_cohort(tmp_path_factory.mktemp("cohort"), images_per_patient=3)


def _write_config(folder: Path, cohort: Path, world_size: int, norm_eval: bool) -> Path:
    """The packaged config, resolved, with the loss recorder; stain jitter and symmetries stay on."""
    options = tiny_options(cohort, epochs=2, model__backbone__norm_eval=norm_eval)
    options["optim_wrapper.optimizer"] = _SGD
    options["train_dataloader.batch_size"] = _GLOBAL_BATCH // world_size
    options["default_hooks.checkpoint.save_best"] = None
    config = load_config(CONFIG, options)
    config.custom_hooks.append({"type": "loss_recorder.LossRecorder"})
    path = folder / f"config_{world_size}_{norm_eval}.py"
    config.dump(path)
    return path


_CALL = "import sys; from pathzoo.cli import main; sys.exit(main(sys.argv[1:]))"


def _run(command: str, *words: object, world_size: int) -> None:
    """`pathzoo` with the variables that torchrun sets, as tools/train.py and tools/test.py call it."""
    arguments = [command, *map(str, words), "--launcher", "pytorch" if world_size > 1 else "none"]
    if world_size == 1 and not torch.cuda.is_available():  # gloo is what is tested here
        assert main(arguments) == 0
    else:
        processes.run(_CALL, *arguments, count=world_size, cwd=_CHECKOUT, paths=[Path(__file__).parent])


@pytest.fixture(scope="module")
def trained(cohort, tmp_path_factory):
    """(losses per iteration averaged over ranks, checkpoint, work folder) of a run, made once for each kind."""
    folder = tmp_path_factory.mktemp("runs")
    made = {}

    def run(world_size: int, norm_eval: bool) -> tuple[np.ndarray, dict, Path]:
        key = world_size, norm_eval
        if key not in made:
            work_dir = folder / f"{world_size}_{norm_eval}"
            config = _write_config(folder, cohort, world_size, norm_eval)
            _run("train", config, "--work-dir", work_dir, "--seed", 3, world_size=world_size)
            losses = [json.loads((work_dir / f"losses_{rank}.json").read_text()) for rank in range(world_size)]
            made[key] = np.mean(losses, axis=0), load_checkpoint_safely(work_dir / "epoch_2.pth"), work_dir
        return made[key]

    return run


def _furthest(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[key].double() - other[key].double()).abs().max()) for key in one)


def test_two_processes_compute_what_one_does_where_normalisation_is_frozen(trained):
    """norm_eval=True, no dropout, augmentation seeded per sample, shards that partition the same global batch."""
    (losses_1, checkpoint_1, _), (losses_2, checkpoint_2, _) = trained(1, True), trained(2, True)
    assert losses_1.shape == losses_2.shape == (6,)  # 2 epochs of 18 images by 6
    assert np.ptp(losses_1) > 1e-3  # something is learnt or at least drawn anew
    np.testing.assert_allclose(losses_2, losses_1, atol=1e-5, rtol=0)
    assert _furthest(checkpoint_1["state_dict"], checkpoint_2["state_dict"]) < 1e-5
    moved = checkpoint_1["optimizer"]["state"]
    assert any(float(state["momentum_buffer"].abs().max()) > 1e-3 for state in moved.values())


def test_two_processes_differ_where_batch_statistics_are_taken_per_process(trained):
    """Each process normalises by its own half of the batch: documented in `_base_/default_runtime.py`."""
    (losses_1, checkpoint_1, _), (losses_2, checkpoint_2, _) = trained(1, False), trained(2, False)
    assert np.abs(losses_2 - losses_1).max() > 1e-4
    assert _furthest(checkpoint_1["state_dict"], checkpoint_2["state_dict"]) > 1e-4


def test_main_process_alone_writes_and_says_how_many_ran(trained):
    _, _, folder = trained(2, True)
    record = json.loads((folder / "train_run.json").read_text())
    assert record["world_size"] == 2
    assert record["status"] == "finished"
    assert len(list(folder.glob("*/*.log"))) == 1


def test_every_image_counts_once_in_the_metrics_of_two_processes(trained, cohort, tmp_path):
    """Five images among two processes: one is given out twice to even the shares, and must not count twice."""
    _, _, folder = trained(2, True)
    tables, rows = [], []
    for world_size in (1, 2):
        config = load_config(_write_config(tmp_path, cohort, world_size, True), {"test_dataloader.dataset.indices": 5})
        config.test_evaluator.n_bootstrap = 50
        path = tmp_path / "test_config.py"
        config.dump(path)
        work_dir = tmp_path / f"test_{world_size}"
        _run("test", path, folder / "epoch_2.pth", "--work-dir", work_dir, world_size=world_size)
        rows.append(json.loads((work_dir / "metrics.json").read_text())["rows"])
        with (work_dir / "test" / "predictions.csv").open() as file:
            tables.append(list(csv.DictReader(file)))
    assert [row["item"] for row in tables[0]] == [row["item"] for row in tables[1]]
    assert len({row["item"] for row in tables[0]}) == len(tables[0]) == 5
    for one, two in zip(*rows, strict=True):
        assert (one["metric"], one["level"], one["n"]) == (two["metric"], two["level"], two["n"])
        for key in ("value", "low", "high"):
            assert (one[key] is None) == (two[key] is None)
            if one[key] is not None:
                assert two[key] == pytest.approx(one[key], abs=1e-6)


@pytest.mark.parametrize(("launcher", "named"), [("pytorch", "RANK"), ("slurm", "SLURM_PROCID")])
def test_launcher_without_its_variables_is_one_clear_line(monkeypatch, launcher, named):
    for key in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "SLURM_PROCID"):
        monkeypatch.delenv(key, raising=False)
    with pytest.raises(ConfigError, match=rf"--launcher {launcher}: .*{named}.*start it by"):
        init_gloo(launcher)
