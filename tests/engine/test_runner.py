"""The runner: exact resume, checkpoints that appear whole, input that is refused, preemption."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from mmengine.fileio import LocalBackend
from tiny_run import CONFIG, as_words, tiny_options

from pathzoo.apis.test import test
from pathzoo.apis.train import train
from pathzoo.engine.checkpoint import load_checkpoint_safely
from pathzoo.engine.hooks.preemption import EXIT_PREEMPTED, PreemptionHook
from pathzoo.errors import CheckpointError

_CHECKOUT = Path(__file__).resolve().parents[2]
#: Stochastic depth draws from torch's generator, the pipeline's flips and stain jitter from the sample's own.
_RANDOM = {"model__backbone__drop_path_rate": 0.3}


def _assert_equal(one, other, where=""):
    """Bitwise, at any depth."""
    assert type(one) is type(other), where
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            _assert_equal(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for number, (left, right) in enumerate(zip(one, other, strict=True)):
            _assert_equal(left, right, f"{where}.{number}")
    else:
        assert one == other, where


@pytest.fixture(scope="module")
def unbroken(cohort, tmp_path_factory) -> dict:
    """The checkpoint after four epochs at once, loaded by the main process."""
    folder = tmp_path_factory.mktemp("unbroken")
    train(CONFIG, folder, options=tiny_options(cohort, epochs=4, **_RANDOM), seed=5)
    return load_checkpoint_safely(folder / "epoch_4.pth")


@pytest.mark.parametrize("workers", [0, 2])
def test_resumed_run_equals_an_unbroken_one_bit_by_bit(cohort, tmp_path, unbroken, workers):
    """Two epochs and then two more; with persistent workers, too, which the unbroken run did not have."""
    for epochs in (2, 4):
        options = tiny_options(cohort, epochs=epochs, workers=workers, **_RANDOM)
        train(CONFIG, tmp_path, options=options, seed=5, resume=epochs == 4)
    resumed = load_checkpoint_safely(tmp_path / "epoch_4.pth")
    for part in ("state_dict", "optimizer", "param_schedulers"):
        _assert_equal(resumed[part], unbroken[part], part)
    history = [run["message_hub"]["log_scalars"]["train/loss"]["history"] for run in (resumed, unbroken)]
    assert torch.equal(*history)
    assert len(history[0]) == 4 * 3


def test_another_seed_gives_another_run(cohort, tmp_path, unbroken):
    """What the test above compares is not constant."""
    train(CONFIG, tmp_path, options=tiny_options(cohort, epochs=1, **_RANDOM), seed=6)
    loss = load_checkpoint_safely(tmp_path / "epoch_1.pth")["message_hub"]["log_scalars"]["train/loss"]["history"]
    assert not torch.equal(loss, unbroken["message_hub"]["log_scalars"]["train/loss"]["history"][:3])


@pytest.fixture(scope="module")
def one_epoch(cohort, tmp_path_factory) -> Path:
    """A run of one epoch. Read only."""
    return train(CONFIG, tmp_path_factory.mktemp("one_epoch"), options=tiny_options(cohort))


def _content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_resuming_by_another_models_config_names_the_tensors_and_changes_nothing(cohort, tmp_path):
    folder = train(CONFIG, tmp_path / "run", options=tiny_options(cohort))
    before = _content(folder)
    options = tiny_options(cohort, epochs=2, model__backbone__name="resnet10t", model__head__in_channels=512)
    with pytest.raises(CheckpointError, match=r"epoch_1\.pth: does not fit.*missing.*backbone\..*unexpected"):
        train(CONFIG, folder, options=options, resume=True)
    assert _content(folder) == before


def test_resuming_from_elsewhere_that_fails_leaves_no_folder(cohort, one_epoch, tmp_path):
    options = tiny_options(cohort, epochs=2, model__backbone__name="resnet10t", model__head__in_channels=512)
    with pytest.raises(CheckpointError):
        train(CONFIG, tmp_path / "deep" / "new", options=options, resume=one_epoch / "epoch_1.pth")
    assert list(tmp_path.iterdir()) == []


def test_load_from_takes_what_fits_and_refuses_a_file_of_which_nothing_does(cohort, one_epoch, tmp_path):
    torch.save({"state_dict": {"encoder.weight": torch.zeros(3)}}, tmp_path / "foreign.pth")
    with pytest.raises(CheckpointError, match=r"foreign\.pth: none of its 1 tensors fits.*encoder\.weight"):
        train(CONFIG, tmp_path / "no", options=tiny_options(cohort, load_from=str(tmp_path / "foreign.pth")))
    assert not (tmp_path / "no").exists()

    state = load_checkpoint_safely(one_epoch / "epoch_1.pth")["state_dict"]
    backbone = {key: value for key, value in state.items() if key.startswith("backbone.")}
    torch.save({"state_dict": backbone}, tmp_path / "encoder.pth")
    options = tiny_options(cohort, load_from=str(tmp_path / "encoder.pth"), optim_wrapper__optimizer__lr=0.0)
    folder = train(CONFIG, tmp_path / "yes", options=options)
    started = load_checkpoint_safely(folder / "epoch_1.pth")["state_dict"]
    trained = {key for key, value in backbone.items() if value.is_floating_point() and "running" not in key}
    assert all(torch.equal(started[key], backbone[key]) for key in trained)


def test_initial_weights_are_not_asked_for_when_resuming(cohort, tmp_path):
    """A cluster node without the hub resumes all the same."""
    train(CONFIG, tmp_path, options=tiny_options(cohort))
    options = tiny_options(cohort, epochs=2, model__backbone__pretrained=str(tmp_path / "gone.safetensors"))
    train(CONFIG, tmp_path, options=options, resume=True)
    assert (tmp_path / "epoch_2.pth").exists()


def test_a_checkpoint_that_cannot_be_written_costs_no_older_one(cohort, tmp_path, monkeypatch):
    """The disk is full half-way through the second epoch's file: the first epoch's stays, whole, and alone."""
    put = LocalBackend.put

    def full_disk(self, data, path):
        if "epoch_2" in str(path):
            put(self, data[: len(data) // 2], path)
            raise OSError(28, "No space left on device")
        put(self, data, path)

    options = tiny_options(cohort, epochs=3)
    monkeypatch.setattr(LocalBackend, "put", full_disk)
    with pytest.raises(OSError, match="No space left"):
        train(CONFIG, tmp_path, options=options)
    assert sorted(path.name for path in tmp_path.rglob("*.pth*")) == ["best_nll_epoch_1.pth", "epoch_1.pth"]
    assert load_checkpoint_safely(tmp_path / "epoch_1.pth")["meta"]["epoch"] == 1

    monkeypatch.undo()
    train(CONFIG, tmp_path, options=options, resume=True)
    assert (tmp_path / "epoch_3.pth").exists()
    assert not (tmp_path / "epoch_2.pth").exists()


def test_the_older_checkpoint_goes_only_when_the_newer_lies_on_disk(cohort, tmp_path, monkeypatch):
    seen = []
    remove = LocalBackend.remove

    def watched(self, path):
        removed = Path(path)
        if removed.suffix == ".pth":
            kind = removed.name.split("epoch_")[0]
            others = [file for file in removed.parent.glob(f"{kind}epoch_*.pth") if file != removed]
            for file in others:
                load_checkpoint_safely(file)
            seen.append((removed.name, len(others)))
        remove(self, path)

    monkeypatch.setattr(LocalBackend, "remove", watched)
    train(CONFIG, tmp_path, options=tiny_options(cohort, epochs=3))
    assert {"epoch_1.pth", "epoch_2.pth"} <= {name for name, _ in seen}
    assert all(count >= 1 for _, count in seen)


def test_testing_does_not_replace_the_runs_copy_of_its_config(cohort, one_epoch, tmp_path):
    """mmengine writes that copy whenever a Runner is made; the run's own says how the weights came about."""
    folder = Path(shutil.copytree(one_epoch, tmp_path / "run"))
    copy = folder / Path(CONFIG).name
    before = copy.read_bytes()
    test(CONFIG, work_dir=folder, options=tiny_options(cohort, test_dataloader__batch_size=2))
    assert copy.read_bytes() == before


def _start(folder: Path, cohort: Path, *words: str, workers: int, epochs: int) -> subprocess.Popen:
    options = as_words(tiny_options(cohort, epochs=epochs, workers=workers))
    command = [sys.executable, "tools/train.py", CONFIG, "--work-dir", str(folder), *words, *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command,
        cwd=_CHECKOUT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize(("number", "workers"), [(signal.SIGTERM, 2), (signal.SIGUSR1, 0)])
def test_preempted_run_ends_with_75_and_goes_on_by_resume(cohort, tmp_path, number, workers):
    """The signal goes to the whole process group, workers included, as batch systems send it."""
    process = _start(tmp_path, cohort, workers=workers, epochs=10_000)
    try:
        deadline = time.monotonic() + 120
        while not (tmp_path / "epoch_1.pth").exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        os.killpg(process.pid, number)
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == EXIT_PREEMPTED, output[-3000:]
    assert f"{number.name} received" in output
    assert workers or "Traceback" not in output

    reached = max(int(path.stem.split("_")[1]) for path in tmp_path.glob("epoch_*.pth"))
    train(CONFIG, tmp_path, options=tiny_options(cohort, epochs=reached + 1), resume=True)
    assert load_checkpoint_safely(tmp_path / f"epoch_{reached + 1}.pth")["meta"]["iter"] == 3 * (reached + 1)


def test_workers_that_end_after_the_signal_interrupt_nothing():
    """PyTorch's loader raises an error from SIGCHLD at whatever line is being run, once for each worker."""

    def as_the_loader_does(number, frame):
        raise RuntimeError("DataLoader worker is killed by signal: Terminated.")

    previous = signal.signal(signal.SIGCHLD, as_the_loader_does)
    hook = PreemptionHook()
    try:
        hook.before_train(None)
        for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGTERM, signal.SIGCHLD):
            signal.raise_signal(number)
        hook.after_train(None)
        assert signal.getsignal(signal.SIGCHLD) is as_the_loader_does
    finally:
        hook.after_train(None)
        signal.signal(signal.SIGCHLD, previous)
