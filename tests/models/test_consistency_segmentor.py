"""ConsistencySegmentor: who teaches whom, what counts, what a checkpoint keeps, and several processes."""

import copy

import numpy as np
import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.dataset import DefaultSampler, pseudo_collate
from mmengine.hooks import EMAHook
from mmengine.structures import PixelData
from mmseg.models import EncoderDecoder, SegDataPreProcessor
from mmseg.structures import SegDataSample
from torch.nn import functional

from pathzoo.engine import Runner
from pathzoo.engine.checkpoint import load_checkpoint_safely
from pathzoo.engine.distributed import DistributedDataParallel
from pathzoo.engine.hooks import EpochSeedHook
from pathzoo.errors import ConfigError
from pathzoo.models import ConsistencySegmentor, PixelCrossEntropy, TimmBackbone, UNetHead
from pathzoo.models.segmentors.consistency import consistency_loss
from pathzoo.registry import MODELS

_PLAIN = {"contrast": 0.0, "color": 0.0, "noise": 0.0, "cutout": 0.0}
_SIZE = (32, 32)


def config(**changed):
    return {
        "type": ConsistencySegmentor,
        "data_preprocessor": {"type": SegDataPreProcessor, "mean": [120.0] * 3, "std": [60.0] * 3, "size": _SIZE},
        "backbone": {"type": TimmBackbone, "name": "test_resnet", "out_indices": (0, 1, 2)},
        "decode_head": {
            "type": UNetHead,
            "in_channels": (32, 32, 48),
            "decoder_channels": (8, 8, 4),
            "num_classes": 3,
            "loss_decode": {"type": PixelCrossEntropy},
        },
        "test_cfg": {"mode": "whole"},
        **changed,
    }


def build(**changed):
    torch.manual_seed(0)
    model = MODELS.build(ConfigDict(copy.deepcopy(config(**changed))))
    torch.nn.init.normal_(model.decode_head.conv_seg.weight, std=0.5)
    return model


def batch(unlabelled, seed=0):
    """Normalised pictures, and samples of which those unlabelled hold a truth that nobody may look at."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(len(unlabelled), 3, *_SIZE, generator=generator)
    found = []
    for hidden in unlabelled:
        sample = SegDataSample(metainfo={"unlabelled": hidden, "img_shape": _SIZE, "ori_shape": _SIZE})
        sample.gt_sem_seg = PixelData(data=torch.randint(0, 3, (1, *_SIZE), generator=generator))
        found.append(sample)
    return inputs, found


def total(losses):
    return sum(value for key, value in losses.items() if "loss" in key)


def test_without_unlabelled_samples_it_is_mmsegs_own():
    model, inputs_and_samples = build(), batch([False, False])
    plain = MODELS.build(
        ConfigDict({key: value for key, value in config().items() if key != "type"} | {"type": EncoderDecoder})
    )
    plain.load_state_dict({key: value for key, value in model.state_dict().items() if not key.startswith("teacher.")})
    theirs = plain.train()(*inputs_and_samples, mode="loss")
    ours = model.train()(*inputs_and_samples, mode="loss")
    assert ours.keys() - theirs.keys() == {"loss_consistency", "kept_share"}
    for key, value in theirs.items():
        torch.testing.assert_close(ours[key], value)
    assert float(ours["loss_consistency"]) == 0
    assert torch.equal(
        model.eval()(*batch([False]), mode="predict")[0].seg_logits.data,
        plain.eval()(*batch([False]), mode="predict")[0].seg_logits.data,
    )


def test_loss_is_its_definition():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 5, generator=generator)
    labels = torch.randint(0, 3, (2, 4, 5), generator=generator)
    confidence, whole = torch.rand(2, 4, 5, generator=generator), torch.rand(2, 4, 5, generator=generator) < 0.7
    above, taught = 0.0, 0
    for n, y, x in torch.nonzero(whole).tolist():
        if confidence[n, y, x] >= 0.6:
            above -= float(logits[n, :, y, x].log_softmax(0)[labels[n, y, x]])
            taught += 1
    value, kept = consistency_loss(logits, labels, confidence, whole, 0.6)
    assert 0 < taught < int(whole.sum())
    assert float(value) == pytest.approx(above / int(whole.sum()), rel=1e-5)
    assert float(kept) == pytest.approx(taught / int(whole.sum()))
    nothing = consistency_loss(logits, labels, confidence, torch.zeros_like(whole), 0.6)
    assert [float(number) for number in nothing] == [0, 0]


def test_the_students_view_is_measured_against_the_teachers_label():
    """With a view that changes nothing and normalisation at rest, both can be had from outside."""
    model = build(threshold=0.4, strong=_PLAIN, consistency_weight=2.0)
    model.teacher.follow(model)
    torch.nn.init.normal_(model.decode_head.conv_seg.weight, std=0.5)  # so that the teacher is another one
    inputs, found = batch([True, False, True])
    losses = model.eval().loss(inputs, found)
    with torch.no_grad():
        student = model.decode_head(model.backbone(inputs))[[0, 2]]
        parts = model.teacher.parts
        confidence, labels = parts["decode_head"](parts["backbone"](inputs))[[0, 2]].softmax(1).max(1)
    sure = confidence >= 0.4
    assert 0.05 < sure.float().mean() < 0.95
    expected = functional.cross_entropy(student, labels, reduction="none")[sure].sum() / sure.numel()
    torch.testing.assert_close(losses["loss_consistency"].detach(), 2 * expected)
    torch.testing.assert_close(losses["kept_share"], sure.float().mean())
    alone = model.loss(inputs[1:2], found[1:2])
    torch.testing.assert_close(losses["decode.loss_ce"], alone["decode.loss_ce"])


def test_what_the_teacher_is_not_sure_of_teaches_nothing():
    for threshold, taught in ((1.0, False), (0.0, True)):
        model = build(threshold=threshold).train()
        losses = model(*batch([True, True]), mode="loss")
        total(losses).backward()
        gradients = [parameter.grad for parameter in model.parameters() if parameter.requires_grad]
        assert all(gradient is not None for gradient in gradients)
        assert any(bool(gradient.any()) for gradient in gradients) == taught
        assert float(losses["kept_share"]) == taught


def test_a_truth_of_an_unlabelled_sample_is_not_looked_at():
    found = []
    for seed in (0, 1):
        model = build(threshold=0.3).train()
        inputs, _ = batch([False, True])
        samples = batch([False, True])[1]
        samples[1].gt_sem_seg.data = batch([True], seed + 5)[1][0].gt_sem_seg.data
        kept = samples[1].gt_sem_seg.data.clone()
        torch.manual_seed(7)
        found.append(model(inputs, samples, mode="loss"))
        assert torch.equal(samples[1].gt_sem_seg.data, kept), "nor changed"
    for key, value in found[0].items():
        assert torch.equal(value, found[1][key])


def test_the_teacher_gets_no_gradient_and_stays_at_rest():
    model = build(threshold=0.3).train()
    assert not any(part.training for part in model.teacher.modules())
    total(model(*batch([False, True]), mode="loss")).backward()
    assert all(p.grad is None and not p.requires_grad for p in model.teacher.parameters())
    statistics = model.teacher.parts["backbone"].state_dict()["timm_model.bn1.running_mean"].clone()
    model.eval().loss(*batch([False, True]))
    assert torch.equal(statistics, model.teacher.parts["backbone"].state_dict()["timm_model.bn1.running_mean"])
    assert int(model.teacher.steps) == 1, "an evaluation is no step"


@pytest.mark.parametrize("momentum", [0.3, 1.0])
def test_the_average_follows_its_formula(momentum):
    """teacher += rate_k (student - teacher), rate_k = max(momentum, 1 / k) in step k = 1, 2, ..."""
    model = build(momentum=momentum, threshold=0.3).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    key = "decode_head.stages.0.first.conv.weight", "backbone.timm_model.bn1.running_var"
    expected, student = dict.fromkeys(key, 0.0), {}
    for step in range(1, 7):
        for name in key:
            student[name] = model.state_dict()[name].double().numpy().copy()
            expected[name] = expected[name] + max(momentum, 1 / step) * (student[name] - expected[name])
        optimizer.zero_grad()
        total(model(*batch([False, True], step), mode="loss")).backward()
        optimizer.step()
        for name in key:
            part, _, rest = name.partition(".")
            found = model.teacher.parts[part].state_dict()[rest].double().numpy()
            np.testing.assert_allclose(found, expected[name], atol=1e-5)
            assert (np.abs(found - student[name]).max() > 1e-4) == (momentum < 1 and step > 1)
    assert int(model.teacher.parts["backbone"].state_dict()["timm_model.bn1.num_batches_tracked"]) == 5


class _Pictures(torch.utils.data.Dataset):
    """Twelve pictures as a pipeline packs them, every other one unlabelled."""

    metainfo: dict = {}  # noqa: RUF012

    def __len__(self):
        return 12

    def __getitem__(self, index):
        inputs, found = batch([index % 2 == 1], seed=index)
        return {"inputs": (120 + 60 * inputs[0]).clamp(0, 255).byte(), "data_samples": found[0]}


def _train(folder, epochs, resume=False):
    loader = {"batch_size": 4, "dataset": _Pictures(), "sampler": {"type": DefaultSampler, "shuffle": True, "seed": 0}}
    torch.set_num_threads(1)
    runner = Runner(
        model=build(threshold=0.4, momentum=0.2),
        work_dir=str(folder),
        train_dataloader=loader | {"num_workers": 0, "collate_fn": {"type": pseudo_collate}},
        train_cfg={"by_epoch": True, "max_epochs": epochs},
        optim_wrapper={"optimizer": {"type": torch.optim.AdamW, "lr": 0.01}},
        custom_hooks=[{"type": EpochSeedHook}, {"type": EMAHook, "momentum": 0.2, "update_buffers": True}],
        randomness={"seed": 3},
        resume=resume,
        log_level="ERROR",
        default_scope=None,
        cfg=Config({}),
    )
    runner.train()
    return load_checkpoint_safely(folder / f"epoch_{epochs}.pth")


def test_a_resumed_run_keeps_its_teacher(tmp_path):
    unbroken = _train(tmp_path / "unbroken", 4)
    _train(tmp_path / "broken", 2)
    resumed = _train(tmp_path / "broken", 4, resume=True)
    for part in ("state_dict", "ema_state_dict"):
        assert unbroken[part].keys() == resumed[part].keys()
        for key, value in unbroken[part].items():
            assert torch.equal(value, resumed[part][key]), key
    trained = resumed["ema_state_dict"]  # EMAHook puts the average in the place of what is trained
    assert int(trained["module.teacher.steps"]) == 12
    weight = "parts.decode_head.stages.0.first.conv.weight"
    assert not torch.equal(trained[f"module.teacher.{weight}"], trained[f"module.{weight.removeprefix('parts.')}"])


@pytest.fixture
def group(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_every_kind_of_batch_reaches_every_parameter_in_several_processes(group):
    """torch's wrapper refuses the next step where a parameter had no gradient: no search for such is needed."""
    model = DistributedDataParallel(build(threshold=0.9), broadcast_buffers=False, find_unused_parameters=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step, kinds in enumerate([(False, True), (False, False), (True, True), (True, False), (False, False)]):
        optimizer.zero_grad()
        total(model.train()(*batch(kinds, step), mode="loss")).backward()
        optimizer.step()
    assert int(model.module.teacher.steps) == 5


def test_that_check_finds_a_parameter_without_gradient(group):
    model = build()
    model.left_over = torch.nn.Linear(2, 2)
    model = DistributedDataParallel(model.train(), broadcast_buffers=False, find_unused_parameters=False)
    with pytest.raises(RuntimeError, match=r"not used in producing loss|finished reduction"):
        for _ in range(2):
            total(model(*batch([False, True]), mode="loss")).backward()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"threshold": 1.5}, r"threshold 1\.5"),
        ({"momentum": 0}, "momentum 0"),
        ({"consistency_weight": -1}, "consistency_weight -1"),
        ({"strong": {"colour": 0.1}}, r"strong .*colour"),
        ({"strong": {"cutout": 1.5}}, r"strong .*1\.5.*cutout lie in 0\.\.1"),
        ({"strong": {"contrast": -0.1}}, r"strong .*contrast and cutout lie in 0\.\.1"),
        ({"strong": {"noise": -1}}, r"color and noise are 0 or more"),
        ({"strong": {"color": "much"}}, r"strong .*much"),
    ],
)
def test_numbers_out_of_range_are_refused(changed, words):
    with pytest.raises(ConfigError, match=words):
        build(**changed)
