"""Training throughput of a config under the Runner, against the bare step and a plain PyTorch loop, in images/s.

    python tools/benchmarks/train_throughput.py [--config CONFIG] [--workers N] [--markdown FILE]

Without --data-root a phantom cohort is drawn for it. Four ways to train the same model on the same images take turns:

    bare step    forward, backward and optimizer on one batch in memory: the ceiling
    peer         a plain loop, images by torchvision's transforms v2 (peer_pipeline.py)
    plain loop   the same loop with the config's data set and pipeline
    Runner       mmengine's Runner by the config with all its hooks; validation and checkpoints are not timed

Runner / plain loop is what the Runner costs; Runner / peer what a user gains or loses. The input pipelines alone are
measured in one process and one thread, in images per second of CPU time.
"""

import argparse
import copy
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import torch
from measuring import Table, in_turns, machine, publish, ratio, spread
from mmengine.hooks import Hook
from peer_pipeline import BACKENDS, TorchvisionImages, crop_of, resize_of

from pathzoo.apis.config import load_config
from pathzoo.apis.setup import setup
from pathzoo.errors import DataError, PathzooError

_CONFIG = "breakhis_xception/full_resnet10t_1xb16_20e_phantom40x_small.py"
_BARE, _PEER, _PLAIN, _RUNNER = "bare step (ceiling)", "plain loop, torchvision", "plain loop, our pipeline", "Runner"


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints; returns 0, or 2 for bad input."""
    arguments = _parser().parse_args(argv)
    setup()
    try:
        with tempfile.TemporaryDirectory(prefix="pathzoo-benchmark-") as folder:
            config = _config(arguments, Path(folder))
            _run(config, arguments)
    except PathzooError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _run(config: Any, arguments: argparse.Namespace) -> None:
    from pathzoo.engine import Runner

    runner = Runner.from_cfg(config)
    dataset = runner.train_loop.dataloader.dataset
    batch = config.train_dataloader.batch_size
    if len(dataset) < batch * arguments.iterations:
        raise DataError(
            f"{config.train_dataloader.dataset.data_root}: {len(dataset)} images, fewer than --iterations "
            f"{arguments.iterations} of {batch} take; give --iterations {max(1, len(dataset) // batch)}"
        )
    device = str(next(runner.model.parameters()).device)
    where = machine(device=device)
    pipelines = _measure_pipelines(config, dataset, arguments)
    backend = max(BACKENDS, key=lambda name: spread(pipelines[f"torchvision, {name}"]).median)
    arms = _arms(config, dataset, backend, device)
    values = _measure_training(runner, arms, len(dataset), arguments.rounds, device)
    workers = config.train_dataloader.get("num_workers", 0)
    note = (
        f"{Path(config.filename).stem}: batches of {batch}, {workers} workers, {len(dataset)} images a round, "
        f"{arguments.rounds} rounds in turns after one to warm up; medians (range). Peer: torchvision on {backend}s, "
        f"the faster of the two here. {where}."
    )
    tables = [*_training_tables(values), _pipeline_table(pipelines, backend)]
    publish(tables, note, arguments.markdown)


def _config(arguments: argparse.Namespace, folder: Path) -> Any:
    """The config with the benchmark's sizes: all images, one epoch a round, no validation."""
    options: dict[str, Any] = {"train_dataloader.dataset.subset": "all", "model.backbone.pretrained": None}
    options |= {"train_cfg.max_epochs": arguments.rounds + 1, "work_dir": str(folder / "run")}
    options |= {"log_level": "WARNING"}
    if arguments.workers is not None:
        persistent = arguments.workers > 0
        options |= {
            "train_dataloader.num_workers": arguments.workers,
            "train_dataloader.persistent_workers": persistent,
        }
    if arguments.batch_size is not None:
        options["train_dataloader.batch_size"] = arguments.batch_size
    batch = arguments.batch_size or load_config(arguments.config).train_dataloader.batch_size
    wanted = batch * arguments.iterations
    options["data_root"] = str(arguments.data_root or _draw(folder / "data", wanted))
    options["train_dataloader.dataset.indices"] = wanted
    config = load_config(arguments.config, options)
    for key in ("val_dataloader", "val_cfg", "val_evaluator", "test_dataloader", "test_cfg", "test_evaluator"):
        config[key] = None
    # One checkpoint at the end at most: writing files is not what is measured.
    config.default_hooks.checkpoint.update(interval=arguments.rounds + 2, save_last=False)
    config.default_hooks.checkpoint.pop("save_best", None)
    return config


def _draw(folder: Path, images: int) -> Path:
    from pathzoo.datasets.phantom import write_breakhis

    per_patient = 10
    print(f"drawing {images} phantom images ...", file=sys.stderr)
    write_breakhis(folder, patients=max(8, -(-images // per_patient)), images_per_patient=per_patient)
    return folder


def _arms(config: Any, dataset: Any, backend: str, device: str) -> dict[str, Callable[[], float]]:
    """What trains one round, by name; each with a model of its own from the same initial weights."""
    loader = config.train_dataloader
    workers = loader.get("num_workers", 0)
    settings = {
        "batch_size": loader.batch_size,
        "num_workers": workers,
        "persistent_workers": bool(workers and loader.get("persistent_workers")),
        "pin_memory": device.startswith("cuda"),
        "shuffle": True,
        "drop_last": True,
    }
    peer = torch.utils.data.DataLoader(_peer(config, dataset, backend), **settings)
    ours = torch.utils.data.DataLoader(dataset, collate_fn=_collate(config), **settings)
    images, labels = next(iter(peer))
    held = [(images.to(device), labels.to(device))] * (len(dataset) // loader.batch_size)
    steps = {_BARE: (held, _plain_step), _PEER: (peer, _plain_step), _PLAIN: (ours, _step_of_ours)}
    return {name: _arm(config, device, batches, make) for name, (batches, make) in steps.items()}


def _arm(config: Any, device: str, batches: Iterable, make_step: Callable) -> Callable[[], float]:
    from pathzoo.registry import MODELS

    torch.manual_seed(0)
    model = MODELS.build(copy.deepcopy(config.model)).to(device)
    model.init_weights()
    model.train()
    settings = {key: value for key, value in config.optim_wrapper.optimizer.items() if key != "type"}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    step = make_step(model, config.optim_wrapper.optimizer.type(trained, **settings), device)

    def measure() -> float:
        started, images = time.perf_counter(), 0
        for batch in batches:
            images += step(batch)
        _wait(device)
        return images / (time.perf_counter() - started)

    return measure


def _plain_step(model: Any, optimizer: Any, device: str) -> Callable[[tuple], int]:
    """The step that a user writes: tensors in, cross-entropy, no OpenMMLab data structures."""

    def step(batch: tuple) -> int:
        images = batch[0].to(device, non_blocking=True)
        labels = batch[1].to(device, non_blocking=True)
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(model(images, mode="tensor"), labels).backward()
        optimizer.step()
        return len(images)

    return step


def _step_of_ours(model: Any, optimizer: Any, device: str) -> Callable[[dict], int]:
    """The same with batches of our pipeline, through the model's own preprocessor and head."""

    def step(batch: dict) -> int:
        data = model.data_preprocessor(batch, training=True)
        optimizer.zero_grad(set_to_none=True)
        sum(model(**data, mode="loss").values()).backward()
        optimizer.step()
        return len(data["inputs"])

    return step


class _Rounds(Hook):
    """Times the Runner's epochs from their first hook to the last iteration; the other arms run between epochs."""

    priority = 0  # before every other hook, so that all they do before and during the epoch is timed

    def __init__(self, others: Callable[[], None], images: int, device: str) -> None:
        self.values: list[float] = []
        self._others, self._images, self._device = others, images, device

    def before_train_epoch(self, runner: Any) -> None:
        self._started = time.perf_counter()

    def after_train_epoch(self, runner: Any) -> None:
        _wait(self._device)
        self.values.append(self._images / (time.perf_counter() - self._started))
        self._others()


def _measure_training(
    runner: Any, arms: dict[str, Callable[[], float]], images: int, rounds: int, device: str
) -> dict[str, list[float]]:
    """name -> images/s of each round. The first, of warming up, is left out."""
    values: dict[str, list[float]] = {name: [] for name in arms}

    def others() -> None:
        turn = len(values[_BARE]) % len(arms)
        for name in [*list(arms)[turn:], *list(arms)[:turn]]:
            values[name].append(arms[name]())
        done = len(values[_BARE])
        print(f"round {done}/{rounds + 1}", file=sys.stderr, flush=True)

    timer = _Rounds(others, images, device)
    runner.register_hook(timer, priority=timer.priority)
    runner.train()
    return {name: found[1:] for name, found in {**values, _RUNNER: timer.values}.items()}


def _measure_pipelines(config: Any, dataset: Any, arguments: argparse.Namespace) -> dict[str, list[float]]:
    """name -> images per CPU-second of each round; every pipeline ends with a normalised float32 image."""
    preprocessor = _preprocessor(config)
    indices = range(min(len(dataset), arguments.pipeline_images))
    ours = lambda index: preprocessor({"inputs": [dataset[index]["inputs"]]})  # noqa: E731
    takes = {"ours": ours}
    for backend in BACKENDS:
        takes[f"torchvision, {backend}"] = _peer(config, dataset, backend).__getitem__
        takes[f"torchvision, {backend}, no hue"] = _peer(config, dataset, backend, hue=False).__getitem__

    def timed(take: Callable[[int], Any]) -> Callable[[], float]:
        def measure() -> float:
            started = time.process_time()
            for index in indices:
                take(index)
            return len(indices) / (time.process_time() - started)

        return measure

    threads = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)  # as in a worker
    cv2.setNumThreads(0)
    try:
        return in_turns({name: timed(take) for name, take in takes.items()}, arguments.rounds)
    finally:
        torch.set_num_threads(threads[0])
        cv2.setNumThreads(threads[1])


def _peer(config: Any, dataset: Any, backend: str, hue: bool = True) -> TorchvisionImages:
    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    pipeline, preprocessor = config.train_dataloader.dataset.pipeline, config.model.data_preprocessor
    return TorchvisionImages(
        infos, resize_of(pipeline), crop_of(pipeline), preprocessor.mean, preprocessor.std, backend, hue
    )


def _preprocessor(config: Any) -> Any:
    from pathzoo.registry import MODELS

    return MODELS.build(copy.deepcopy(config.model)).data_preprocessor


def _collate(config: Any) -> Callable:
    from mmengine.dataset import default_collate

    return config.train_dataloader.get("collate_fn", {}).get("type", default_collate)


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def _training_tables(values: dict[str, list[float]]) -> list[Table]:
    rows = [
        (name, spread(values[name]).show(), ratio(values[name], values[_BARE]).show())
        for name in (_BARE, _PEER, _PLAIN, _RUNNER)
    ]
    pairs = (("Runner / plain loop, our pipeline", _PLAIN, "over 0.95"), ("Runner / peer", _PEER, "at least 1"))
    compared = [(title, ratio(values[_RUNNER], values[base]).show(), aim) for title, base, aim in pairs]
    return [
        Table("Training, images/s", ("", "images/s", "of the ceiling"), rows),
        Table("Training, ratios", ("", "ratio (range)", "aim"), compared),
    ]


def _pipeline_table(values: dict[str, list[float]], backend: str) -> Table:
    rows = [(name, spread(found).show(), ratio(values["ours"], found).show()) for name, found in values.items()]
    title = f"Input pipelines alone, one thread; peer: torchvision, {backend}; aim: ours / peer at least 1"
    return Table(title, ("", "images per CPU-second", "ours / this"), rows)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--config", default=_CONFIG, help="a config of BreakHis's kind; the small phantom one by default"
    )
    parser.add_argument("--data-root", type=Path, help="images for it; a phantom cohort is drawn where not given")
    parser.add_argument("--batch-size", type=int, help="the config's where not given")
    parser.add_argument("--workers", type=int, help="loader processes; the config's where not given")
    parser.add_argument("--iterations", type=int, default=20, help="per round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--pipeline-images", type=int, default=200, help="per measurement of the pipelines alone")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables there too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
