"""Watches whether a pretext run's embeddings collapse while its loss looks well."""

import csv
import io
import logging
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from torch import nn

from pathzoo.errors import ConfigError
from pathzoo.evaluation.functional.embedding_spread import EmbeddingSpread, embedding_spread
from pathzoo.fileio import write_text
from pathzoo.nearest import did_you_mean
from pathzoo.registry import HOOKS

#: Columns of collapse.csv: the numbers of `EmbeddingSpread` with the place in the run before them.
COLUMNS = ("iteration", "epoch", *EmbeddingSpread._fields)
#: Seconds between two drawings, so that short epochs do not go by drawing.
_BETWEEN = 30.0


@HOOKS.register_module()
class CollapseMonitor(Hook):
    """Measures the embeddings of a training batch from time to time, on the way: no further pass of the network.

    It writes `WORK_DIR/collapse.csv`, a line for each measurement (iteration, epoch, n, dimensions, spread,
    effective_rank, alignment, uniformity; see `pathzoo.evaluation.functional.embedding_spread`), and
    `WORK_DIR/collapse.png` after epochs and at the end, on the main process, of its own batch. A resumed run goes on in
    the same file: lines of iterations that are done again are replaced. Neither the model nor its random numbers are
    touched.

    Views of the same pictures, which alignment needs, are told by the model: SimCLR's pass its neck in one batch
    (`views_in_one_pass`), those of mmpretrain's BYOL and SimSiam one after the other. Where there is one view, as for
    RotationPred, alignment stays empty.

    Args:
        module: The module whose output is measured, by its name within the model; "backbone" where there is no neck.
            Maps (N, D, H, W) are averaged over their places.
        interval: Iterations from one measurement to the next.
        max_rows: Of a batch at most so many pictures are looked at, the first ones.
        warn_after: Iterations before which nothing is warned of: random networks give much the same vector for
            everything.
        spread_below: Warns once where the spread falls below; 1 is the sphere evenly used, 0 a single point.
        rank_below: Warns once where the effective rank falls below.

    Raises:
        ConfigError: A number out of its range; as training begins: a module that the model does not have.
    """

    #: After the optimizer's step and the log of the same iteration.
    priority = "LOW"

    def __init__(
        self,
        module: str = "neck",
        interval: int = 50,
        max_rows: int = 1024,
        warn_after: int = 100,
        spread_below: float = 0.1,
        rank_below: float = 2.0,
    ) -> None:
        for name, value, least in (("interval", interval, 1), ("max_rows", max_rows, 2), ("warn_after", warn_after, 0)):
            if not isinstance(value, int) or value < least:
                raise ConfigError(f"CollapseMonitor: {name}={value!r}; give a whole number, {least} or more")
        for name, limit in (("spread_below", spread_below), ("rank_below", rank_below)):
            if not limit >= 0:
                raise ConfigError(f"CollapseMonitor: {name}={limit!r}; give 0 (never warn) or more")
        self.module, self.interval, self.max_rows = module, interval, max_rows
        self.warn_after, self.spread_below, self.rank_below = warn_after, spread_below, rank_below
        self.rows: list[dict[str, float]] = []
        self._outputs: list[torch.Tensor] = []
        self._handle: Any = None
        self._said: set[str] = set()
        self._drawn = 0.0

    def before_train(self, runner: Any) -> None:
        """Finds the module, and takes up the file of a resumed run."""
        _find(runner.model, self.module)
        path = Path(runner.work_dir) / "collapse.csv"
        self.rows = [row for row in _read(path) if row["iteration"] <= runner.iter] if runner.iter else []
        self._drawn = time.monotonic()

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Listens to the module where this iteration is to be measured, and only then."""
        if is_main_process() and (runner.iter + 1) % self.interval == 0:
            self._outputs = []
            self._handle = _find(runner.model, self.module).register_forward_hook(self._keep)

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Measures what came, adds a line, and warns."""
        if self._handle is None:
            return
        self._handle.remove()
        self._handle = None
        if not self._outputs:
            text = f"module {self.module!r} was not called in a step (a compiled model hides it): nothing is measured"
            self._warn(runner, "silent", text)
            return
        views = self._views(getattr(_unwrapped(runner.model), "views_in_one_pass", 1))
        self._outputs = []
        found = embedding_spread(*views)
        iteration = runner.iter + 1  # mmengine counts it after this hook
        self.rows.append({"iteration": iteration, "epoch": runner.epoch + 1, **found._asdict()})
        write_text(Path(runner.work_dir) / "collapse.csv", _as_csv(self.rows))
        if iteration > self.warn_after:
            self._judge(runner, found, iteration)

    def after_train_epoch(self, runner: Any) -> None:
        """Draws, unless it did a moment ago."""
        if time.monotonic() - self._drawn > _BETWEEN:
            self._draw(runner)

    def after_train(self, runner: Any) -> None:
        """Draws the whole run."""
        self._draw(runner)

    def _keep(self, module: nn.Module, inputs: Any, output: Any) -> None:
        """A forward hook that leaves the output as it is."""
        last = output[-1] if isinstance(output, tuple | list) else output
        self._outputs.append(last.detach())

    def _views(self, in_one_pass: int) -> list[Any]:
        """Up to two arrays (n, D) of the same pictures."""
        parts = [part for output in self._outputs for part in output.chunk(in_one_pass)][:2]
        parts = [part.flatten(2).mean(2) if part.ndim > 2 else part for part in parts]
        if len(parts) == 2 and parts[0].shape != parts[1].shape:  # such as crops of two sizes
            parts = parts[:1]
        return [part[: self.max_rows].float().cpu().numpy() for part in parts]

    def _judge(self, runner: Any, found: EmbeddingSpread, iteration: int) -> None:
        for name, limit, means in (
            ("spread", self.spread_below, "all pictures get much the same embedding"),
            ("effective_rank", self.rank_below, "the embeddings lie in hardly more than one direction"),
        ):
            value = getattr(found, name)
            if math.isnan(value):
                text = f"{name} is not a number at iteration {iteration}: the embeddings are not finite"
                self._warn(runner, name, text)
            elif value < limit:
                text = (
                    f"{name} {value:.3g} at iteration {iteration}, below {limit:g}: {means}; a lower learning rate, "
                    "stronger views, larger batches or a higher temperature may help (collapse.png)"
                )
                self._warn(runner, name, text)

    def _warn(self, runner: Any, key: str, text: str) -> None:
        """Once in a run."""
        if key not in self._said:
            self._said.add(key)
            runner.logger.log(logging.WARNING, f"CollapseMonitor: {text}")

    def _draw(self, runner: Any) -> None:
        if not self.rows or not is_main_process():
            return
        from pathzoo.visualization.collapse import plot_collapse
        from pathzoo.visualization.curves import save_figure

        save_figure(
            plot_collapse(self.rows, self.spread_below, self.rank_below), Path(runner.work_dir) / "collapse.png"
        )
        self._drawn = time.monotonic()


def _unwrapped(model: nn.Module) -> nn.Module:
    return model.module if is_model_wrapper(model) else model


def _find(model: nn.Module, name: str) -> nn.Module:
    own = _unwrapped(model)
    modules = dict(own.named_modules())
    if name not in modules or not name:
        children = [child for child, _ in own.named_children()]
        hint = did_you_mean(name, modules) if "." in name else f"; there are {', '.join(children)}"
        raise ConfigError(f"CollapseMonitor: {type(own).__name__} has no module {name!r}{hint}")
    return modules[name]


def _as_csv(rows: Sequence[dict[str, float]]) -> str:
    """Text of the file; a number that is not defined is left empty."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        values = [row[name] for name in COLUMNS]
        writer.writerow(["" if math.isnan(value) else f"{value:.7g}" for value in values])
    return out.getvalue()


def _read(path: Path) -> list[dict[str, float]]:
    """Rows of a file that this hook wrote; none where there is no file, or another one."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            return []
        return [{name: float(value) if value else math.nan for name, value in row.items()} for row in reader]
