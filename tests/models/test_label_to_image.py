"""Label map to picture: one-hot in, any channels out, weights, noise, training under the Runner, several processes."""

import numpy as np
import processes
import pytest
import torch
from mmengine.dataset import BaseDataset, DefaultSampler, pseudo_collate
from mmengine.optim import OptimWrapper
from translator_worker import SIDE, pairs, steps, translator, work

from pathzoo.errors import ConfigError, DataError
from pathzoo.models import LabelToImage, PairPreprocessor, PatchDiscriminator, UnetGenerator
from pathzoo.models.translators.pairs import one_hot


def test_one_hot_says_what_is_where_and_nothing_of_unlabelled_pixels():
    labels = torch.tensor([[[0, 1], [2, 255]]])
    channels = one_hot(labels, 3)
    assert channels.shape == (1, 3, 2, 2)
    assert channels[0].sum(0).tolist() == [[1, 1], [1, 0]]
    assert [channels[0, k, y, x].item() for k, (y, x) in enumerate([(0, 0), (0, 1), (1, 0)])] == [1, 1, 1]
    with pytest.raises(DataError, match="holds 3; there are 3 classes, 0 to 2"):
        one_hot(torch.full((1, 2, 2), 3), 3)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64])
@pytest.mark.parametrize("ignore_index", [255, 1])
def test_one_hot_equals_torchs(dtype, ignore_index):
    values = torch.tensor([0, 1, 2, ignore_index], dtype=dtype)
    labels = values[torch.randint(4, (2, 5, 7), generator=torch.Generator().manual_seed(0))]
    known = labels != ignore_index
    expected = torch.nn.functional.one_hot(labels.long().where(known, 0), 3) * known[..., None]
    found = one_hot(labels, 3, ignore_index)
    assert found.dtype == torch.float32 and found.is_contiguous()
    assert torch.equal(found.movedim(1, -1), expected.float())


@pytest.mark.parametrize("wrong", [3, 256, 511, -1])
def test_a_wrong_label_is_named_before_it_is_sent_as_a_byte(wrong):
    batch = pairs(2)
    batch["data_samples"][1].gt_sem_seg.data[0, 3, 4] = wrong
    with pytest.raises(DataError, match=rf"holds {wrong}; there are 3 classes"):
        translator().data_preprocessor(batch, training=True)


def test_unlabelled_pixels_may_have_any_number_that_is_no_byte():
    batch = pairs(2)
    batch["data_samples"][1].gt_sem_seg.data[0, 3, 4] = -100
    preprocessor = PairPreprocessor(3, mean=[127.5], std=[127.5], ignore_index=-100)
    channels = preprocessor(batch, training=True)["inputs"]["img_label"]
    assert channels[1, :, 3, 4].tolist() == [0, 0, 0]
    assert channels.sum() == channels[:, 0].numel() - 1


def test_pairs_are_between_minus_one_and_one_and_come_back():
    preprocessor = PairPreprocessor(3, mean=[127.5], std=[127.5])
    batch = pairs(2)
    batch["inputs"][0][0, 0, :2] = torch.tensor([0.0, 255.0])
    done = preprocessor(batch, training=True)["inputs"]
    assert done["img_label"].shape == (2, 3, SIDE, SIDE)
    assert done["img_image"][0, 0, 0, :2].tolist() == [-1, 1]
    torch.testing.assert_close(preprocessor.to_values(done["img_image"]), torch.stack(batch["inputs"]))


def test_wrong_channels_and_missing_labels_are_named():
    with pytest.raises(ConfigError, match="pictures of 3 channels, mean and std of 1"):
        PairPreprocessor(3, mean=[0.0], std=[1.0])(pairs(1, n_channels=3))
    bare = pairs(1)
    del bare["data_samples"][0].gt_sem_seg
    with pytest.raises(ConfigError, match="no label map"):
        PairPreprocessor(3, mean=[0.0], std=[1.0])(bare)
    norm = {"type": "IN"}
    network = {"type": UnetGenerator, "in_channels": 1, "out_channels": 1, "norm_cfg": norm}
    preprocessor = {"type": PairPreprocessor, "n_classes": 3, "mean": [0.0], "std": [1.0]}
    with pytest.raises(ConfigError, match=r"generator.in_channels is 1; it takes 3"):
        LabelToImage(network, preprocessor)
    with pytest.raises(ConfigError, match=r"discriminator.in_channels is 3; it takes 4"):
        LabelToImage(
            network | {"in_channels": 3}, preprocessor, {"type": PatchDiscriminator, "in_channels": 3, "norm_cfg": norm}
        )


def test_sides_that_the_generator_cannot_halve_are_named():
    with pytest.raises(DataError, match=r"pictures of 48 x 32 px: .* halves them 5 times .* multiples of 32"):
        translator().draw(torch.zeros(1, 32, 48, dtype=torch.long))


def test_weights_begin_as_in_the_paper():
    model = translator(base=32)
    kernels = torch.cat(
        [
            m.weight.detach().flatten()
            for m in model.modules()
            if isinstance(m, torch.nn.Conv2d | torch.nn.ConvTranspose2d)
        ]
    )
    assert abs(kernels.mean()) < 1e-3
    assert kernels.std() == pytest.approx(0.02, rel=0.02)
    assert all((value == 0).all() for name, value in model.named_parameters() if name.endswith("bias"))


def test_a_picture_depends_on_its_label_map_alone():
    model = translator(num_down=5).train()
    labels = torch.stack([sample.gt_sem_seg.data[0] for sample in pairs(4)["data_samples"]])
    together = model.draw(labels)
    assert together.shape == (4, 1, SIDE, SIDE)
    assert 0 <= together.min() < together.max() <= 255
    torch.testing.assert_close(model.draw(labels[2:3]), together[2:3], atol=1e-3, rtol=0)
    assert model.generators.training  # as it was found


def test_noise_is_the_dropout_drawn_by_a_seed_of_the_picture():
    model = translator(num_down=6, dropout=True)
    labels = torch.nn.functional.pad(torch.ones(3, SIDE, SIDE, dtype=torch.long), (16, 16, 16, 16))
    state = torch.get_rng_state()
    drawn = model.draw(labels, seeds=[1, 2, 1])
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], drawn[1])
    assert torch.equal(model.draw(labels[:1], seeds=[2])[0], drawn[1])
    assert not torch.equal(model.draw(labels[:1])[0], drawn[0])


def test_a_generator_alone_draws():
    whole, alone = translator(), translator(discriminator=False)
    alone.load_state_dict({k: v for k, v in whole.state_dict().items() if k.startswith("generators.")})
    labels = pairs(1)["data_samples"][0].gt_sem_seg.data
    assert torch.equal(whole.draw(labels), alone.draw(labels))


def test_losses_are_those_of_the_paper():
    """Against the formulas of section 3, by hand, of the first step."""
    model, batch = translator(), pairs(2)
    reference = translator()
    found = steps(model, [batch], model)[0]
    data = reference.data_preprocessor(batch)["inputs"]
    label, real = data["img_label"], data["img_image"]
    fake = reference.generators["image"](label)
    judge = reference.discriminators["image"]

    def cross_entropy(logits, target):
        p = torch.sigmoid(logits)
        return float(-(target * p.log() + (1 - target) * (1 - p).log()).mean())

    assert found["loss_gan_d_fake"] == pytest.approx(cross_entropy(judge(torch.cat([label, fake], 1)), 0), abs=1e-5)
    assert found["loss_gan_d_real"] == pytest.approx(cross_entropy(judge(torch.cat([label, real], 1)), 1), abs=1e-5)
    assert found["loss_pixel"] == pytest.approx(100 * float((fake - real).abs().mean()), rel=1e-5)


@pytest.mark.parametrize("n_channels", [1, 3])
def test_training_under_the_runner_learns_what_each_class_looks_like(tmp_path, n_channels):
    from pathzoo.engine import Runner
    from pathzoo.engine.optimizers import MultiOptimWrapperConstructor

    class Pairs(BaseDataset):
        def load_data_list(self):
            batch = pairs(16, n_channels)
            return [
                {"inputs": i, "data_samples": s} for i, s in zip(batch["inputs"], batch["data_samples"], strict=True)
            ]

        def prepare_data(self, idx):
            return self.get_data_info(idx)

    adam = {"type": OptimWrapper, "optimizer": {"type": torch.optim.Adam, "lr": 2e-3, "betas": (0.5, 0.999)}}
    model = translator(n_channels, base=8)
    runner = Runner(
        model=model,
        work_dir=str(tmp_path),
        train_dataloader={
            "batch_size": 4,
            "num_workers": 0,
            "sampler": {"type": DefaultSampler, "shuffle": True},
            "collate_fn": {"type": pseudo_collate},
            "dataset": Pairs(serialize_data=False),
        },
        train_cfg={"by_epoch": True, "max_epochs": 15},
        optim_wrapper={"constructor": MultiOptimWrapperConstructor, "generators": adam, "discriminators": adam},
        default_scope=None,
        randomness={"seed": 0},
    )
    runner.train()
    samples = pairs(4, n_channels, seed=9)["data_samples"]
    labels = torch.stack([sample.gt_sem_seg.data[0] for sample in samples])
    drawn = model.draw(labels)
    assert drawn.shape[1] == n_channels
    means = [float(drawn.mean(1)[labels == k].mean()) for k in range(3)]
    np.testing.assert_allclose(means, [40, 130, 220], atol=25)


def test_validation_gives_the_real_picture_beside_the_drawn_one():
    model, batch = translator(), pairs(2)
    samples = model.val_step(batch)
    labels = torch.stack([sample.gt_sem_seg.data[0] for sample in samples])
    for sample, drawn, real in zip(samples, model.draw(labels), batch["inputs"], strict=True):
        assert torch.equal(sample.drawn_image.data, drawn)
        torch.testing.assert_close(sample.real_image.data, real)


def test_two_processes_compute_what_one_does(tmp_path):
    """Instance normalisation, no dropout: the gradient of a batch is the mean of those of its halves."""
    n = 3
    processes.spawn(work, (str(tmp_path), n))
    shares = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    model = translator()
    losses = steps(model, [pairs(4, seed=index) for index in range(n)], model)
    for index in range(n):
        for name, value in losses[index].items():
            assert np.mean([share["losses"][index][name] for share in shares]) == pytest.approx(value, abs=1e-4)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(shares[0]["state"][name], value, atol=1e-5, rtol=0)
        assert torch.equal(shares[0]["state"][name], shares[1]["state"][name])
