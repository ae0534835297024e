"""Chooses when pseudo-labels are made, and which ones training uses."""

import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop

from pathzoo.engine.hooks.preemption import PreemptionHook
from pathzoo.engine.self_training.audit import Alarm
from pathzoo.engine.self_training.folder import PseudoLabelFolder, round_folder
from pathzoo.engine.self_training.labeller import Tiling
from pathzoo.engine.self_training.policies import checked_policy
from pathzoo.engine.self_training.rounds import Round, make_round
from pathzoo.engine.self_training.sharing import on_main
from pathzoo.engine.self_training.teacher import check_teacher, find_teacher, frozen_copy, random_state_untouched
from pathzoo.errors import ConfigError, DataError
from pathzoo.registry import HOOKS


@HOOKS.register_module()
class SelfTrainingHook(Hook):
    """Self-training: from time to time the unlabelled part gets the teacher's predictions for labels.

    Before the first of `rounds` the data set gives labelled samples alone. Before each of these epochs a round is made
    (see `pathzoo.engine.self_training.rounds`) below `work_dir/pseudo_labels`, and from then on its labels are trained
    on, with the weight and the share that the data set was told. A run that was ended, within a round too, goes on
    with `--resume` as if it had not been.

    Making a round changes neither the model nor its statistics nor any random number of the training.

    Args:
        rounds: epochs trained before each round, ascending: `[8, 16]` makes the first before the ninth epoch. 0 needs
            weights to begin with (`load_from`).
        policy: what is kept: "all" as in the study, dict(type="fixed", threshold=0.9) or dict(type="quantile",
            keep=0.5); see `pathzoo.engine.self_training.policies`.
        tta: views that the teacher's prediction is averaged over: "none", "flips" (4) or "d4" (8).
        tile: side of the tiles that the teacher predicts, in pixels of the region; None for that of the patches which
            are trained on. Networks that pool over the whole tile, as ResNeSt's attention does, see larger ones, or
            those that reach far beyond a small region, differently from what they learnt.
        stride: pixels from tile to tile; None for three quarters of a tile.
        batch_size: tiles that go through the teacher at once.
        teacher: "ema" for the moving average that an EMAHook keeps, "model" for the model as it stands.
        audit_truth: hold the pseudo-labels against the truth of the unlabelled part, where the data has it. It serves
            the audit alone.
        dies_below, certainty_below, certainty_drop, kept_below: when a round is warned of; see
            `pathzoo.engine.self_training.audit.Alarm`.

    Raises:
        ConfigError: an argument out of its choices; as training begins: a loop without epochs, a round after the end, a
            data set that takes no pseudo-labels, no EMAHook for teacher="ema"; a resumed run's round that was made
            after another number of epochs than `rounds` says.
        DataError: the round that a resumed run was trained with is missing, damaged, or another run's.
    """

    #: Before IterTimerHook, which would count a round as the time to load the first batch.
    priority = "ABOVE_NORMAL"

    def __init__(
        self,
        rounds: Sequence[int],
        policy: str | Mapping[str, Any] = "all",
        tta: str = "none",
        tile: int | None = None,
        stride: int | None = None,
        batch_size: int = 8,
        teacher: str = "ema",
        audit_truth: bool = True,
        dies_below: float = Alarm.dies_below,
        certainty_below: float = Alarm.certainty_below,
        certainty_drop: float = Alarm.certainty_drop,
        kept_below: float = Alarm.kept_below,
    ) -> None:
        self.rounds = _checked_rounds(rounds)
        self.policy = checked_policy(policy)
        self._tiling = {"stride": stride, "tta": tta, "batch_size": batch_size}
        self.tile = tile
        self.tiling(max(256, stride) if isinstance(stride, int) else 256)  # what is wrong is said before any training
        check_teacher(teacher)
        self.teacher, self.audit_truth = teacher, audit_truth
        self.alarm = Alarm(dies_below, certainty_below, certainty_drop, kept_below)
        #: The run's id, which its checkpoints carry on.
        self.run: str | None = None
        self._in_use = 0

    def tiling(self, patch_size: int | None) -> Tiling:
        """How regions are predicted by a model that is trained on patches of `patch_size` pixels."""
        return Tiling(self.tile if self.tile is not None else patch_size, **self._tiling)

    @staticmethod
    def check_config(arguments: Mapping[str, Any]) -> None:
        """Checks the arguments before anything of a config is built.

        Raises:
            ConfigError: as the class.
        """
        SelfTrainingHook(**arguments)

    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """A resumed run keeps its id."""
        if runner._resume:
            self.run = checkpoint.get("self_training", {}).get("run")

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Every checkpoint says which run it is of."""
        checkpoint["self_training"] = {"run": self.run}

    def before_train(self, runner: Any) -> None:
        """Refuses what could only fail epochs later, and names a new run."""
        if not isinstance(runner.train_loop, EpochBasedTrainLoop):
            raise ConfigError("SelfTrainingHook: rounds are counted in epochs; use EpochBasedTrainLoop in train_cfg")
        if self.rounds[-1] >= runner.max_epochs:
            raise ConfigError(
                f"SelfTrainingHook: a round after {self.rounds[-1]} epochs, and training ends after "
                f"{runner.max_epochs}: nothing would be trained on it; take it off `rounds`, or train longer"
            )
        if self.rounds[0] == 0 and not runner._has_loaded:
            raise ConfigError(
                "SelfTrainingHook: rounds begin at 0, before any training, and no weights were loaded: give load_from, "
                "or begin later"
            )
        dataset = runner.train_dataloader.dataset
        if not all(hasattr(dataset, name) for name in ("use_pseudo_labels", "labelled", "unlabelled")):
            raise ConfigError(
                f"SelfTrainingHook: {type(dataset).__name__} takes no pseudo-labels; make "
                "train_dataloader.dataset a pathzoo.datasets.pseudo_labelled.PseudoLabelled"
            )
        if not getattr(dataset, "pseudo", True):
            raise ConfigError(
                "SelfTrainingHook: train_dataloader.dataset has pseudo=False, for methods that make their own "
                "target; set pseudo=True, or leave the hook out"
            )
        patch_size = getattr(dataset.labelled, "patch_size", None)
        if self.tile is None and patch_size is None:
            raise ConfigError(
                f"SelfTrainingHook: {type(dataset.labelled).__name__} states no patch_size to predict by; give tile="
            )
        self.tiling(patch_size)  # a stride that is too long is told now, not at the first round
        find_teacher(runner, self.teacher)
        if self.run is None:
            self.run = on_main(lambda: uuid.uuid4().hex)

    def before_train_epoch(self, runner: Any) -> None:
        """Makes a round where one is due; takes up the right one where the run was resumed in between."""
        number = sum(runner.epoch >= begin for begin in self.rounds)
        if number == self._in_use:
            return
        if self.rounds[number - 1] == runner.epoch:
            folder = self._make(runner, number)
        else:
            folder = self._made_before(runner, number)
        dataset = runner.train_dataloader.dataset
        folder.check(dataset, self.run)
        self._check_epoch(folder, number)
        dataset.use_pseudo_labels(folder)
        # Persistent workers hold the data set as it was when they started: the next epoch starts new ones.
        runner.train_dataloader._iterator = None
        self._in_use = number

    def _make(self, runner: Any, number: int) -> PseudoLabelFolder:
        plan = Round(
            work_dir=Path(runner.work_dir),
            number=number,
            epoch=runner.epoch,
            run=self.run,
            dataset=runner.train_dataloader.dataset,
            teacher=self.teacher,
            policy=self.policy,
            tiling=self.tiling(getattr(runner.train_dataloader.dataset.labelled, "patch_size", None)),
            alarm=self.alarm,
            use_truth=self.audit_truth,
        )
        preemption = [hook for hook in runner.hooks if isinstance(hook, PreemptionHook)]

        def leave_if_asked() -> None:
            for hook in preemption:
                hook.after_failure(runner)

        with random_state_untouched():
            teacher = frozen_copy(find_teacher(runner, self.teacher))
            return make_round(plan, teacher, runner.logger, leave_if_asked)

    def _made_before(self, runner: Any, number: int) -> PseudoLabelFolder:
        """The round that the run was trained with before it was resumed; its teacher is no longer there."""
        begin, path = self.rounds[number - 1], round_folder(runner.work_dir, number)
        if not path.is_dir():
            raise DataError(
                f"{path}: not there, and the run resumed after {runner.epoch} epochs was trained with it: restore it, "
                f"or resume from a checkpoint of at most {begin} epochs, from which it is made again"
            )
        runner.logger.info(f"self-training: going on with round {number}, made after {begin} epochs: {path}")
        return PseudoLabelFolder(path)

    def _check_epoch(self, folder: PseudoLabelFolder, number: int) -> None:
        begin, made = self.rounds[number - 1], folder.provenance["epoch"]
        if made != begin:
            raise ConfigError(
                f"{folder.path}: made after {made} epochs, but rounds={list(self.rounds)} has round {number} after "
                f"{begin}: rounds that were made stay where they were; give the `rounds` that the run began with"
            )


def _checked_rounds(rounds: Sequence[int]) -> tuple[int, ...]:
    values = tuple(rounds) if isinstance(rounds, list | tuple) else ()
    whole = all(isinstance(value, int) and not isinstance(value, bool) and value >= 0 for value in values)
    if not values or not whole or list(values) != sorted(set(values)):
        raise ConfigError(f"rounds={rounds!r}: give numbers of epochs, ascending, such as [8, 16]")
    return values
