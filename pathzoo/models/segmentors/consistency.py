"""Training on unlabelled pictures beside labelled ones, online.

What a teacher sees in the plain view, the student has to see in a strongly changed one. Sources: FixMatch (Sohn et al.,
NeurIPS 2020) for confident pseudo-labels and the strong view; Mean Teacher (Tarvainen and Valpola, NeurIPS 2017) for
the averaged teacher.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.structures import PixelData
from mmseg.models.segmentors import EncoderDecoder
from mmseg.structures import SegDataSample
from mmseg.utils import add_prefix
from torch import nn
from torch.nn import functional

from pathzoo.errors import ConfigError
from pathzoo.models.segmentors.strong_view import strong_view
from pathzoo.registry import MODELS


@MODELS.register_module()
class ConsistencySegmentor(EncoderDecoder):
    """mmseg's EncoderDecoder that also learns from samples whose metainfo says `unlabelled=True`.

    The student is what stands at the usual places (`backbone`, `decode_head`) and what predicts, in training and from a
    checkpoint; the teacher, an average of the student's weights, labels unlabelled pictures and is kept in checkpoints
    (`teacher.*`) so that a resumed run goes on. Both go when the model is published: it is then an EncoderDecoder. To
    predict with averaged weights add mmengine's EMAHook, as to any model.

    A batch passes the student once, labelled pictures as they are and unlabelled ones in their strong view, so that
    every parameter has a gradient whatever a batch holds, and normalisation sees both. Whatever labels an unlabelled
    sample has are not looked at.

    Args:
        threshold: The teacher's pseudo-label of a pixel counts from this confidence (its highest probability) on, 0..1.
        momentum: Of the teacher, as mmengine counts it: teacher += rate * (student - teacher) in every step, rate the
            larger of `momentum` and 1 / (step + 1), so that it begins as the student and first follows it closely. 1
            makes the student its own teacher.
        consistency_weight: Of the consistency loss beside the supervised one.
        strong: Keywords of `strong_view`.
        kwargs: mmseg's: backbone, decode_head, data_preprocessor, train_cfg, test_cfg, ...

    The losses are mmseg's by name (`decode.loss_ce`, ...), `loss_consistency`, and, to be logged, `kept_share`: of the
    unlabelled pixels those that counted. `loss_consistency` is the cross-entropy of the student's strong view against
    the teacher's label, summed over the pixels that count and divided by all unlabelled pixels that were not erased: a
    teacher that is sure of little teaches little.

    Raises:
        ConfigError: A number out of its range, a keyword or a number that `strong_view` does not take.
    """

    def __init__(
        self,
        *,
        threshold: float = 0.95,
        momentum: float = 0.001,
        consistency_weight: float = 1.0,
        strong: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not 0 <= threshold <= 1 or not 0 < momentum <= 1 or not consistency_weight >= 0:
            raise ConfigError(
                f"ConsistencySegmentor: threshold {threshold}, momentum {momentum}, consistency_weight "
                f"{consistency_weight}; taken are 0..1, above 0 up to 1, and 0 or more"
            )
        self.threshold, self.consistency_weight = threshold, consistency_weight
        self.strong = dict(strong or {})
        try:
            strong_view(torch.zeros(0, 3, 1, 1), **self.strong)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"ConsistencySegmentor: strong {self.strong}: {error}") from error
        self.teacher = _Teacher(self, momentum)

    def loss(self, inputs: torch.Tensor, data_samples: Sequence[Any]) -> dict[str, torch.Tensor]:
        """Supervised and consistency losses of a batch: inputs (N, 3, H, W), normalised, samples labelled or not."""
        if self.training:
            self.teacher.follow(self)  # the student's last step is done; here it works with any loop and wrapper
        unlabelled = [bool(sample.metainfo.get("unlabelled", False)) for sample in data_samples]
        supervised = [
            _hidden(sample, self.decode_head.ignore_index) if hide else sample
            for sample, hide in zip(data_samples, unlabelled, strict=True)
        ]
        index = torch.tensor([k for k, found in enumerate(unlabelled) if found], device=inputs.device)
        if not len(index):
            losses, logits = self._supervised(inputs, supervised)
            return losses | {"loss_consistency": logits.new_zeros(()), "kept_share": logits.new_zeros(())}
        labels, confidence = self.teacher.label(inputs[index])
        changed, whole = strong_view(inputs[index], **self.strong)
        losses, logits = self._supervised(inputs.index_copy(0, index, changed), supervised)
        shown = self.decode_head.predict_by_feat(logits, [{"img_shape": inputs.shape[2:]}])[index]
        value, kept = consistency_loss(shown, labels, confidence, whole, self.threshold)
        return losses | {"loss_consistency": self.consistency_weight * value, "kept_share": kept}

    def _supervised(self, inputs: torch.Tensor, data_samples: list[Any]) -> tuple[dict, torch.Tensor]:
        """As mmseg's own `loss`, with the decode head's logits, of which all samples have some."""
        maps = self.extract_feat(inputs)
        logits = self.decode_head(maps)
        losses = add_prefix(self.decode_head.loss_by_feat(logits, data_samples), "decode")
        if self.with_auxiliary_head:
            losses |= self._auxiliary_head_forward_train(maps, data_samples)
        return losses, logits


def consistency_loss(
    logits: torch.Tensor, labels: torch.Tensor, confidence: torch.Tensor, whole: torch.Tensor, threshold: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy against pseudo-labels where these are sure, and the share of pixels that counted.

    Args:
        logits: (N, C, H, W), the student's.
        labels: (N, H, W), int64, 0..C-1, the teacher's.
        confidence: (N, H, W), 0..1.
        whole: (N, H, W), bool; False where the student was shown nothing.
        threshold: Pixels of this confidence and above count.

    Returns:
        Two scalars; the first is a sum over the pixels that count, divided by the number of `whole` ones.
    """
    taught = whole & (confidence >= threshold)
    losses = functional.cross_entropy(logits.float(), labels, reduction="none")
    n = whole.sum().clamp_min(1)
    return (losses * taught).sum() / n, taught.sum() / n


class _Teacher(nn.Module):
    """An average of the student: no gradient, never in training mode. Its initial weights come with the first step."""

    def __init__(self, student: EncoderDecoder, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        parts = {name: getattr(student, name) for name in ("backbone", "neck", "decode_head") if hasattr(student, name)}
        self.parts = nn.ModuleDict(copy.deepcopy(parts)).requires_grad_(False)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.eval()

    def train(self, mode: bool = True) -> "_Teacher":
        """Stays in eval mode: what it says of a picture does not depend on the rest of the batch."""
        return super().train(False)

    @torch.no_grad()
    def follow(self, student: nn.Module) -> None:
        """One step of the average, of normalisation's statistics too; counters are copied."""
        rate = (1 / (self.steps + 1)).clamp_min(self.momentum)  # stays on its device: nothing waits for it
        for name, part in self.parts.items():
            theirs = getattr(student, name).state_dict()
            for key, average in part.state_dict().items():
                if average.is_floating_point():
                    average.lerp_(theirs[key], rate.to(average.dtype))
                else:
                    average.copy_(theirs[key])
        self.steps += 1

    @torch.no_grad()
    def label(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The likeliest class (N, H, W) and its probability, of inputs (N, 3, H, W)."""
        maps = self.parts["backbone"](inputs)
        if "neck" in self.parts:
            maps = self.parts["neck"](maps)
        head = self.parts["decode_head"]
        logits = head.predict_by_feat(head(maps), [{"img_shape": inputs.shape[2:]}])
        confidence, labels = logits.float().softmax(dim=1).max(dim=1)
        return labels, confidence


def _hidden(sample: Any, ignore_index: int) -> SegDataSample:
    """The sample with a label map of nothing but `ignore_index`, whatever its own says."""
    hidden = SegDataSample(metainfo=sample.metainfo)
    hidden.gt_sem_seg = PixelData(data=torch.full_like(sample.gt_sem_seg.data, ignore_index))
    return hidden
