"""UNetHead against a plain reckoning of a U-Net, at sizes that 2 divides and others, and its losses."""

import pytest
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import nn
from torch.nn import functional

from pathzoo.errors import ConfigError
from pathzoo.models import DiceLoss, PixelCrossEntropy, TimmBackbone, UNetHead
from pathzoo.registry import MODELS

_CHANNELS, _WIDTHS = (4, 6, 8), (7, 5, 3)


def pyramid(height, width, channels=_CHANNELS, n=2):
    """Maps at strides 2, 4, 8, ..., each size rounded up as a padded convolution of stride 2 does."""
    maps = []
    for count in channels:
        height, width = -(-height // 2), -(-width // 2)
        maps.append(torch.randn(n, count, height, width))
    return maps


def samples(labels, **metainfo):
    """One data sample for each label map of (N, H, W); every keyword has N values."""
    found = []
    for k, label in enumerate(labels):
        sample = SegDataSample(metainfo={key: values[k] for key, values in metainfo.items()})
        sample.gt_sem_seg = PixelData(data=label[None])
        found.append(sample)
    return found


def by_hand(head, maps):
    """The U-Net of the head's weights, written out: numbers repeated, maps joined, convolutions one by one."""
    x = maps[-1]
    for k, stage in enumerate(head.stages):
        x = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        if k < len(maps) - 1:
            beside = maps[-2 - k]
            x = torch.cat([x[:, :, : beside.shape[2], : beside.shape[3]], beside], dim=1)
        for block in (stage.first, stage.second):
            x = functional.conv2d(x, block.conv.weight, padding=1)
            mean, var = block.bn.running_mean, block.bn.running_var
            x = functional.batch_norm(x, mean, var, block.bn.weight, block.bn.bias, eps=block.bn.eps).relu()
    return functional.conv2d(x, head.conv_seg.weight, head.conv_seg.bias)


@pytest.fixture
def head():
    torch.manual_seed(0)
    head = UNetHead(_CHANNELS, _WIDTHS, num_classes=3).eval()
    for name, tensor in [*head.named_parameters(), *head.named_buffers()]:
        if "bn" in name and tensor.is_floating_point():
            nn.init.uniform_(tensor, 0.5, 1.5)
    nn.init.normal_(head.conv_seg.weight)
    return head


@pytest.mark.parametrize("size", [(64, 64), (65, 97), (33, 40), (8, 63)])
def test_it_is_the_u_net_written_out(head, size):
    maps = pyramid(*size)
    with torch.no_grad():
        logits = head(maps)
        torch.testing.assert_close(logits, by_hand(head, maps))
        fitted = head.predict_by_feat(logits, [{"img_shape": torch.Size(size)}])
    assert logits.shape == (2, 3, 2 * maps[0].shape[2], 2 * maps[0].shape[3])
    assert fitted.shape == (2, 3, *size)
    assert torch.equal(fitted, logits[:, :, : size[0], : size[1]]), "cut, not resized: pixels keep their places"


def test_parameters_are_those_of_the_formula():
    """Two 3x3 convolutions a stage without bias, each with a scale and a shift per channel; then 1x1 with bias."""
    encoder, widths = (64, 256, 512, 1024, 2048), (256, 128, 64, 32, 16)
    with torch.device("meta"):
        head = UNetHead(encoder, num_classes=3)
    expected, before = 16 * 3 + 3, 2048
    for width, beside in zip(widths, (1024, 512, 256, 64, 0), strict=True):
        expected += 9 * (before + beside) * width + 9 * width * width + 4 * width
        before = width
    assert sum(p.numel() for p in head.parameters()) == expected == 9_012_979


@pytest.mark.parametrize(
    ("name", "stem", "encoder", "decoder"),
    [
        ("resnest14d", 64, 8_562_688, 9_013_363),
        ("resnest26d", 64, 15_020_448, 9_013_363),
        ("resnest50d", 64, 25_434_240, 9_013_363),
        ("resnest101e", 128, 46_226_016, 9_031_795),
    ],
)
def test_over_each_resnest_it_has_the_parameters_of_another_u_net(name, stem, encoder, decoder):
    """Those of segmentation-models-pytorch 0.6.0's Unet("tu-" + name), 3 classes, whose last convolution is 3x3."""
    with torch.device("meta"):
        backbone = TimmBackbone(name, out_indices=(0, 1, 2, 3, 4)).eval()
        head = UNetHead(backbone.channels, num_classes=3).eval()
        logits = head(backbone(torch.zeros(1, 3, 65, 97)))
    assert backbone.channels == (stem, 256, 512, 1024, 2048)
    assert sum(p.numel() for p in backbone.parameters()) == encoder
    assert sum(p.numel() for p in head.parameters()) == decoder - (9 - 1) * 16 * 3
    assert head.predict_by_feat(logits, [{"img_shape": (65, 97)}]).shape == (1, 3, 65, 97)


def test_pixels_keep_their_places():
    """With weights that only pass the finest map on, a pixel's logit is its own map's, at any size."""
    head = UNetHead((1, 1), (1, 1), num_classes=2, norm_cfg=None, act_cfg=None).eval()
    for name, parameter in head.named_parameters():
        nn.init.zeros_(parameter)
        if name.endswith("conv.weight"):
            parameter.data[0, -1, 1, 1] = 1  # the last channel in: what is joined
    head.conv_seg.weight.data[:, 0, 0, 0] = torch.tensor([1.0, -1.0])
    picture = torch.rand(1, 1, 11, 6)
    maps = [picture[:, :, ::2, ::2], picture[:, :, ::4, ::4]]
    logits = head.predict_by_feat(head(maps), [{"img_shape": torch.Size((11, 6))}])
    for y in range(11):
        for x in range(6):
            wanted = float(picture[0, 0, y - y % 2, x - x % 2])
            assert logits[0, :, y, x].tolist() == pytest.approx([wanted, -wanted])


def test_a_shift_of_the_picture_shifts_the_answer(head):
    """By the coarsest stride; away from the border, where padding tells the place."""

    def maps_of(picture):
        levels = [functional.avg_pool2d(picture, stride) for stride in (2, 4, 8)]
        return [
            torch.cat([level * (k + 1) for k in range(count)], dim=1)
            for level, count in zip(levels, _CHANNELS, strict=True)
        ]

    picture = torch.randn(1, 1, 128, 128)
    with torch.no_grad():
        logits, shifted = head(maps_of(picture)), head(maps_of(picture.roll((8, 16), dims=(2, 3))))
    torch.testing.assert_close(shifted[:, :, 48:80, 56:88], logits[:, :, 40:72, 40:72], atol=1e-4, rtol=1e-4)
    assert float(logits[:, :, 40:72, 40:72].std()) > 0.01


@pytest.mark.parametrize(("widths", "stride"), [((5, 4), 2), ((5, 4, 3), 1), ((5, 4, 3, 2), 0.5)])
def test_stages_beyond_the_maps_each_double(widths, stride):
    head = UNetHead(_CHANNELS, widths, num_classes=2).eval()
    logits = head(pyramid(48, 32))
    assert logits.shape[2:] == (48 / stride, 32 / stride)
    assert head.predict_by_feat(logits, [{"img_shape": (48, 32, 3)}]).shape[2:] == (48, 32)


def test_an_encoder_that_begins_at_stride_4():
    backbone = TimmBackbone("convnext_atto", out_indices=(0, 1, 2, 3)).eval()
    head = UNetHead(backbone.channels, (16, 12, 8, 8, 4), num_classes=2).eval()
    x = torch.randn(1, 3, 70, 90)
    with torch.no_grad():
        logits = head.predict_by_feat(head(backbone(x)), [{"img_shape": x.shape[2:]}])
    assert logits.shape == (1, 2, 70, 90)


def test_chosen_maps_alone_are_decoded():
    head = UNetHead((4, 8), (5, 3), num_classes=2, in_index=(0, 2)).eval()
    maps = pyramid(32, 32)
    assert head(maps).shape == (2, 2, 32, 32)


@pytest.mark.parametrize("size", [(64, 64), (65, 97), (33, 40)])
def test_a_whole_segmentor_trains_and_predicts_at_any_size(size):
    from mmseg.models import EncoderDecoder

    backbone = TimmBackbone("test_resnet", out_indices=(0, 1, 2, 3, 4))
    config = {
        "type": EncoderDecoder,
        "backbone": {"type": TimmBackbone, "name": "test_resnet", "out_indices": (0, 1, 2, 3, 4)},
        "decode_head": {
            "type": UNetHead,
            "in_channels": backbone.channels,
            "decoder_channels": (16, 12, 8, 8, 4),
            "num_classes": 3,
            "loss_decode": [{"type": PixelCrossEntropy}, {"type": DiceLoss}],
        },
        "test_cfg": {"mode": "whole"},
    }
    from mmengine.config import ConfigDict

    model = MODELS.build(ConfigDict(config)).train()
    x, labels = torch.randn(2, 3, *size), torch.randint(0, 3, (2, *size))
    shapes = {"img_shape": [size] * 2, "ori_shape": [size] * 2}
    losses = model(x, samples(labels, **shapes), mode="loss")
    assert set(losses) == {"decode.loss_ce", "decode.loss_dice", "decode.acc_seg"}
    sum(value for key, value in losses.items() if "loss" in key).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    answers = model.eval()(x, samples(labels, **shapes), mode="predict")
    assert [answer.seg_logits.data.shape for answer in answers] == [(3, *size)] * 2


def _losses(head, logits, labels, **metainfo):
    logits = logits.clone().requires_grad_()
    losses = head.loss_by_feat(logits, samples(labels, **metainfo))
    (losses["loss_ce"] + losses["loss_dice"]).backward()
    return losses, logits.grad


@pytest.fixture
def both():
    return UNetHead(_CHANNELS, _WIDTHS, num_classes=3, loss_decode=[{"type": PixelCrossEntropy}, {"type": DiceLoss}])


def test_weights_of_samples(both):
    torch.manual_seed(0)
    logits, labels = torch.randn(3, 3, 8, 8), torch.randint(0, 3, (3, 8, 8))
    labels[:, :2] = 255
    plain, plain_grad = _losses(both, logits, labels)
    alike, alike_grad = _losses(both, logits, labels, loss_weight=[0.3] * 3)
    torch.testing.assert_close(alike["loss_ce"], plain["loss_ce"])
    torch.testing.assert_close(alike_grad, plain_grad, atol=2e-4, rtol=2e-2)  # smoothing of Dice is in pixels
    without, without_grad = _losses(both, logits[:2], labels[:2])
    zero, zero_grad = _losses(both, logits, labels, loss_weight=[1.0, 1.0, 0.0])
    assert not zero_grad[2].any()
    torch.testing.assert_close(zero_grad[:2], without_grad)
    torch.testing.assert_close(zero["loss_ce"], without["loss_ce"])
    torch.testing.assert_close(zero["loss_dice"], without["loss_dice"])
    with pytest.raises(ConfigError, match=r"loss_weight of a sample is -1\.0"):
        _losses(both, logits, labels, loss_weight=[1.0, -1.0, 1.0])


def test_losses_are_taken_on_the_labels_own_pixels(both):
    """Logits of a picture of odd size are larger by the surplus of the doubling; that part meets no label."""
    logits, labels = torch.randn(2, 3, 10, 8), torch.randint(0, 3, (2, 9, 7))
    found, gradient = _losses(both, logits, labels)
    torch.testing.assert_close(found["loss_ce"], functional.cross_entropy(logits[:, :, :9, :7], labels))
    assert not gradient[:, :, 9].any() and not gradient[..., 7].any()


def test_accuracy_is_of_the_labelled_pixels(both):
    labels = torch.zeros(2, 4, 4, dtype=torch.int64)
    labels[0] = 255
    labels[1, 0] = 1
    logits = torch.zeros(2, 3, 4, 4)
    logits[:, 0] = 1
    losses, _ = _losses(both, logits, labels)
    assert float(losses["acc_seg"]) == 75
    losses, _ = _losses(both, logits, torch.full_like(labels, 255))
    assert [float(value.detach()) for value in losses.values()] == [0, 0, 0]


def test_two_losses_of_one_name_are_added(both):
    head = UNetHead(_CHANNELS, _WIDTHS, num_classes=3, loss_decode=[{"type": PixelCrossEntropy}] * 2)
    logits, labels = torch.randn(1, 3, 8, 8), torch.randint(0, 3, (1, 8, 8))
    one = both.loss_by_feat(logits, samples(labels))["loss_ce"]
    torch.testing.assert_close(head.loss_by_feat(logits, samples(labels))["loss_ce"], 2 * one)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"decoder_channels": (4,)}, r"are 1 stages; 3 maps take 2 to 4 \(3 where the finest map lies at stride 2\)"),
        ({"decoder_channels": (4, 4, 4, 4, 4)}, "are 5 stages; 3 maps take 2 to 4"),
        ({"in_channels": (4,), "decoder_channels": (4,)}, "two maps at least"),
        ({"in_index": (0, 1)}, "as many numbers in both"),
    ],
)
def test_stages_that_do_not_fit_the_maps_are_refused(changed, words):
    with pytest.raises(ConfigError, match=words):
        UNetHead(**{"in_channels": _CHANNELS, "decoder_channels": _WIDTHS, "num_classes": 2, **changed})


def test_maps_of_another_encoder_are_refused(head):
    with pytest.raises(ConfigError, match=r"maps have \[4, 6, 9\] channels, in_channels says \[4, 6, 8\]"):
        head(pyramid(32, 32, channels=(4, 6, 9)))


def test_without_mmseg_the_error_says_what_to_install(monkeypatch):
    import sys

    import pathzoo.models

    for name in [name for name in sys.modules if name.startswith(("mmseg", "pathzoo.models.decode_heads"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mmseg", None)
    with pytest.raises(ImportError, match=r"pathzoo\.models\.UNetHead needs mmsegmentation; install pathzoo\[segm"):
        pathzoo.models.__getattr__("UNetHead")
    assert not hasattr(pathzoo.models, "NoSuchHead")
    assert "UNetHead" in dir(pathzoo.models)
