"""Processes that measure when they are asked to, and sleep otherwise: one for each arm of a benchmark of training.

Needs torch alone, so that a peer's interpreter can import it. A process says what it is with one line, `about`, and
then answers each line that it reads, the name of a measurement, with its value.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

#: Begins the lines that are meant for the benchmark.
MARK = "answer: "


class Arm:
    """Starts a process and speaks with it.

    Args:
        title: for messages.
        command: what is run.
        environment: of the process.

    Attributes:
        about: what it said of itself.
    """

    def __init__(self, title: str, command: Sequence[str | Path], environment: Mapping[str, str]) -> None:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._process = subprocess.Popen([str(word) for word in command], **pipes, env=environment)
        self.about = self._answer()
        print(f"{title}: ready", file=sys.stderr, flush=True)

    def asks(self, word: str) -> Callable[[], float]:
        """What has the process measure once."""

        def ask() -> float:
            assert self._process.stdin is not None
            self._process.stdin.write(f"{word}\n")
            self._process.stdin.flush()
            return float(self._answer())

        return ask

    def end(self) -> None:
        """Closes its input, upon which it ends."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(MARK):
                return json.loads(line.removeprefix(MARK))
        raise SystemExit(f"{' '.join(map(str, self._process.args))}\nended with {self._process.wait()}")


def serve(about: dict[str, Any], measures: dict[str, Callable[[], float]]) -> None:
    """Says what it is, then answers each line that names a measurement with its value."""
    answer(about)
    for line in sys.stdin:
        answer(measures[line.strip()]())


def answer(value: Any) -> None:
    """One line of JSON, marked, so that whatever else a library prints is told from it."""
    print(f"{MARK}{json.dumps(value)}", flush=True)


def batches_of(
    dataset: Dataset, batch_size: int, workers: int, device: str, collate: Callable | None = None
) -> DataLoader:
    """The loader of a plain loop."""
    return DataLoader(
        dataset,
        batch_size=batch_size,
        collate_fn=collate,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device == "cuda",
    )


def training(batches: Iterable, step: Callable[[Any], int], device: str) -> Callable[[], float]:
    """What measures a round of training in samples per second; a step returns how many it took."""

    def measure() -> float:
        started, samples = time.perf_counter(), 0
        for batch in batches:
            samples += step(batch)
        if device == "cuda":
            torch.cuda.synchronize()
        return samples / (time.perf_counter() - started)

    return measure


def reading(dataset: Any) -> Callable[[], float]:
    """What measures the data set alone, in one thread, in samples per second of CPU time."""

    def measure() -> float:
        with one_thread():
            started = time.process_time()
            for index in range(len(dataset)):
                dataset[index]
            return len(dataset) / (time.process_time() - started)

    return measure


class one_thread:  # noqa: N801 - reads as what it does
    """Has torch, and OpenCV where it is loaded, work in one thread, as in a loader's worker."""

    def __enter__(self) -> None:
        self._torch, self._cv2 = torch.get_num_threads(), sys.modules.get("cv2")
        torch.set_num_threads(1)
        if self._cv2 is not None:
            self._threads = self._cv2.getNumThreads()
            self._cv2.setNumThreads(0)

    def __exit__(self, *error: object) -> None:
        torch.set_num_threads(self._torch)
        if self._cv2 is not None:
            self._cv2.setNumThreads(self._threads)
