"""A process that predicts a folder of slides by a rule: `python batch_worker.py SLIDES OUT LOG [SECONDS PER BATCH]`."""

import sys
import time
from pathlib import Path

import numpy as np

from pathzoo.apis.predict_batch import SlideTask, run_batch
from pathzoo.wsi.names import slide_name
from pathzoo.wsi.predictor import ClassProbs, InputSpec
from pathzoo.wsi.run_options import RunOptions


class Slow:
    """The redder, the more malignant, after a pause."""

    name, version, digest, task = "slow", "1.0.0", "", "classification"
    classes = ("benign", "malignant")
    input = InputSpec((64, 64), 0.5)

    def __init__(self, seconds: float = 0.0) -> None:
        self._seconds = seconds

    def __call__(self, tiles: np.ndarray, /) -> ClassProbs:
        time.sleep(self._seconds)
        p = tiles[..., 0].mean(axis=(1, 2)) / 255
        return ClassProbs(np.stack([1 - p, p], axis=1).astype(np.float32))


def tasks(slides: Path, **options) -> list[SlideTask]:
    """One task per file, read in this process: a second one per worker would only slow the tests."""
    given = RunOptions(isolate=False, batch_size=8, **options)
    return [SlideTask(path, slide_name(path), given) for path in sorted(slides.iterdir())]


if __name__ == "__main__":
    slides, out, log = (Path(word) for word in sys.argv[1:4])
    result = run_batch(tasks(slides), Slow(float(sys.argv[4])), out)
    with log.open("a") as file:
        file.write(f"{len(result.results) - result.reused} done, {result.reused} reused, {len(result.failed)} failed\n")
