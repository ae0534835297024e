"""A backbone starts from a file, a run's checkpoint or its average; what does not fit is listed and not loaded."""

import json
import re

import pytest
import timm
import torch
from safetensors.torch import save_file

from pathzoo.errors import CheckpointError, ConfigError, ZooError
from pathzoo.models import TimmBackbone
from pathzoo.models.backbones.parent_weights import backbone_digest, compare, read_parent

_NETWORK = "test_resnet"


@pytest.fixture(scope="module")
def parent():
    """timm's network with weights of its own, which no seed of a test gives again."""
    torch.manual_seed(1234)
    network = timm.create_model(_NETWORK, num_classes=3)
    state = network.state_dict()
    for value in state.values():
        if value.is_floating_point():
            value.uniform_(0.5, 1.5)
    return state


def backbone_of(parent):
    return {key: value for key, value in parent.items() if not key.startswith("fc.")}


def as_run(parent, folder, file="epoch_1.pth", extra=None, **changes):
    """A checkpoint as mmengine leaves one: the backbone among other parts."""
    folder.mkdir(exist_ok=True)
    state = {f"backbone.timm_model.{key}": value for key, value in backbone_of(parent).items()}
    state |= {"neck.fc0.weight": torch.zeros(4, 96), "head.loss.scale": torch.zeros(1)}
    torch.save({"state_dict": state | (extra or {}), "meta": {"epoch": 1}, **changes}, folder / file)
    return folder / file


def filled(pretrained, **options):
    backbone = TimmBackbone(_NETWORK, pretrained=str(pretrained), **options)
    backbone.init_weights()
    return backbone


def assert_is(backbone, parent, but=()):
    own = backbone.timm_model.state_dict()
    assert set(own) == set(backbone_of(parent))
    for key, value in own.items():
        assert torch.equal(value, parent[key]) == (key not in but), key


def test_a_runs_folder_gives_its_best_checkpoint(parent, tmp_path):
    other = {key: value + 1 if value.is_floating_point() else value for key, value in parent.items()}
    as_run(other, tmp_path / "run", "epoch_9.pth")
    (tmp_path / "run" / "train_run.json").write_text("{}")
    assert_is(filled(tmp_path / "run"), other)
    best = as_run(parent, tmp_path / "run", "best_loss_epoch_3.pth")
    assert_is(filled(tmp_path / "run"), parent)
    assert read_parent(tmp_path / "run").record == read_parent(best).record, "it names the file, not the folder"


def test_a_runs_checkpoint_gives_its_backbone(parent, tmp_path):
    path = as_run(parent, tmp_path / "run")
    assert_is(filled(path), parent)
    assert read_parent(path).record["source"] == "run"


def test_the_average_is_taken_where_a_run_kept_one(parent, tmp_path):
    """mmengine's EMAHook exchanges the two before it saves: the average lies in `state_dict`."""
    raw = {f"module.backbone.timm_model.{key}": torch.zeros_like(value) for key, value in parent.items()}
    assert_is(filled(as_run(parent, tmp_path / "run", ema_state_dict=raw)), parent)


def test_the_copy_that_a_pretext_keeps_of_its_backbone_is_not_taken(parent, tmp_path):
    """BYOL's target network holds the same keys under another prefix."""
    target = {f"target_net.module.0.timm_model.{key}": torch.ones_like(value) for key, value in parent.items()}
    assert_is(filled(as_run(parent, tmp_path / "run", extra=target)), parent)


def test_a_run_tells_network_mean_and_std(parent, tmp_path):
    path = as_run(parent, tmp_path / "run")
    assert read_parent(path).network is None, "no record beside it"
    run = {"model": {"backbone": {"name": _NETWORK}}, "model_input": {"mean": [1.0, 2.0, 3.0], "std": [4.0, 5.0, 6.0]}}
    (tmp_path / "run" / "train_run.json").write_text(json.dumps(run))
    found = read_parent(path)
    assert (found.network, found.mean, found.std) == (_NETWORK, [1.0, 2.0, 3.0], [4.0, 5.0, 6.0])


def test_half_precision_is_computed_with_as_float32(parent, tmp_path):
    half = {key: value.half() if value.is_floating_point() else value for key, value in parent.items()}
    save_file(half, tmp_path / "w.safetensors")
    backbone = filled(tmp_path / "w.safetensors")
    assert {p.dtype for p in backbone.parameters()} == {torch.float32}
    assert all(torch.equal(value, half[key].to(value.dtype)) for key, value in backbone.timm_model.state_dict().items())


def damaged(parent):
    """One tensor missing, one of another shape, one that nobody knows."""
    names = [key for key in backbone_of(parent) if key.endswith("weight")]
    state = dict(parent) | {"extra.weight": torch.zeros(2), names[1]: torch.zeros(7)}
    del state[names[0]]
    return state, names


def test_what_does_not_fit_is_listed_and_nothing_is_loaded(parent, tmp_path):
    state, (missing, misshapen, *_) = damaged(parent)
    save_file(state, tmp_path / "w.safetensors")
    backbone = TimmBackbone(_NETWORK, pretrained=str(tmp_path / "w.safetensors"))
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    with pytest.raises(CheckpointError) as error:
        backbone.init_weights()
    text = str(error.value)
    n = len(backbone_of(parent))
    assert f"{n - 2} tensors mapped" in text and "\n" not in text
    assert f"1 missing ({missing})" in text
    assert "1 unexpected (extra.weight)" in text, "the classifier is no surprise"
    assert re.search(rf"1 misshapen \({re.escape(misshapen)} is \[7\], not \[\d+", text)
    assert "model.backbone.partial=True" in text
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())


def test_what_fits_is_loaded_where_that_is_asked_for(parent, tmp_path):
    state, (missing, misshapen, *_) = damaged(parent)
    save_file(state, tmp_path / "w.safetensors")
    torch.manual_seed(7)
    backbone = filled(tmp_path / "w.safetensors", partial=True)
    assert_is(backbone, parent, but=(missing, misshapen))


def test_nothing_that_fits_is_refused_even_in_part(tmp_path):
    save_file({"a": torch.zeros(2)}, tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match=r"0 tensors mapped, \d+ missing .*, 1 unexpected \(a\)"):
        filled(tmp_path / "w.safetensors", partial=True)


def test_the_upper_stages_that_a_pyramid_leaves_out_are_no_surprise(parent, tmp_path):
    save_file(dict(parent), tmp_path / "w.safetensors")
    backbone = filled(tmp_path / "w.safetensors", out_indices=(0, 1))
    own = backbone.timm_model.state_dict()
    assert len(own) < len(backbone_of(parent))
    assert all(torch.equal(value, parent[key]) for key, value in own.items())


def test_comparing_draws_no_random_numbers(parent):
    """The heads that are initialised afterwards must not depend on which file the backbone came from."""
    network = timm.create_model(_NETWORK, num_classes=0)
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    assert compare(parent, network, _NETWORK).whole
    assert torch.equal(torch.rand(2), expected)


def test_what_only_unpickling_could_open_is_refused(tmp_path):
    class Code:
        def __reduce__(self):
            return print, ("run",)

    torch.save({"state_dict": Code()}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="only unpickling could make"):
        filled(tmp_path / "w.pth")


def test_what_is_no_parent_says_what_to_give(tmp_path, monkeypatch):
    monkeypatch.setenv("PATHZOO_ZOO", str(tmp_path))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "train_run.json").write_text("{}")
    for given, error, match in (
        ("gone.pth", ConfigError, r"gone\.pth: no such file; give 'imagenet', None, or a .* NAME\[@VERSION\]"),
        ("some/where", ConfigError, "some/where: no such file"),
        (tmp_path / "run", CheckpointError, "holds no checkpoint; train first"),
        (tmp_path, ZooError, "no model.json in it"),
        ("no-such-model", ZooError, "no model 'no-such-model'"),
    ):
        with pytest.raises(error, match=match):
            filled(given)


def test_digests_follow_values_names_and_shapes(parent):
    tensors = backbone_of(parent)
    own = backbone_digest(tensors, "float32")
    assert backbone_digest(dict(reversed(tensors.items())), "float32") == own, "the order is no content"
    rounded = {key: value.half() if value.is_floating_point() else value for key, value in tensors.items()}
    assert backbone_digest(rounded, "float16") == backbone_digest(tensors, "float16")
    assert backbone_digest(rounded, "float32") != own
    name = next(key for key, value in tensors.items() if value.ndim == 4)
    assert backbone_digest(tensors | {name: tensors[name] + 1e-3}, "float16") != backbone_digest(tensors, "float16")
    assert backbone_digest(tensors | {name: tensors[name].flatten()}, "float32") != own
    renamed = {("x" if key == name else key): value for key, value in tensors.items()}
    assert backbone_digest(renamed, "float32") != own
