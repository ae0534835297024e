"""Configs: a mistyped key fails before anything is built, with the file, the key and the nearest valid one."""

from pathlib import Path

import pytest

from pathzoo.apis.config import check_config, find_config, load_config, set_options
from pathzoo.apis.options import parse_options
from pathzoo.apis.signatures import accepted_keywords
from pathzoo.errors import ConfigError
from pathzoo.paths import configs_root

_SMALL = "breakhis_xception/full_resnet10t_1xb16_20e_phantom40x_small.py"
_BASE = configs_root() / "_base_"


def _write(folder: Path, text: str) -> Path:
    path = folder / "mine.py"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "train_dataloder = dict(batch_size=2)",
            r"mine\.py: nothing reads the key 'train_dataloder'; .*_dataloader'",
        ),
        ("train_dataloader = dict(batchsize=2)", r"mine\.py: .*train_dataloader\.batchsize; did you mean 'batch_size'"),
        (
            "from pathzoo.models import TimmBackbone\nmodel = dict(type=TimmBackbone, nme='resnet10t')",
            r"mine\.py: model\.nme: TimmBackbone takes no 'nme'; did you mean 'name'",
        ),
        (
            "from mmengine.hooks import LoggerHook\ndefault_hooks = dict(logger=dict(type=LoggerHook, intervall=3))",
            r"mine\.py: default_hooks\.logger\.intervall: LoggerHook takes no 'intervall'; did you mean 'interval'",
        ),
        (
            "from pathzoo.datasets.breakhis import BreakHis\n"
            "test_dataloader = dict(dataset=dict(type=BreakHis, split=dict(scheme='patient_kfold', flod=1)))",
            r"mine\.py: test_dataloader\.dataset: split: .* no key 'flod'; did you mean 'fold'",
        ),
        ("randomness = dict(sed=1)", r"randomness\.sed; did you mean 'seed'"),
        ("model = dict(type='pathzoo.models.TimBackbone')", r"model\.type: pathzoo\.models has no 'TimBackbone'"),
        ("parameters = dict(fold=['train_dataloader.dataset.fold'])", r"parameters\.fold: the config has no"),
        ("x = (", r"mine\.py: cannot be read as a config"),
    ],
)
def test_mistyped_key_names_file_key_and_nearest(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        load_config(_write(tmp_path, text))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"train_cfg.max_epoch": 1}, r"--cfg-options train_cfg\.max_epoch: .*; did you mean 'max_epochs'"),
        ({"model.backbone.trainble": None}, r"no 'model\.backbone\.trainble'; did you mean 'trainable'"),
        ({"modle.head.num_classes": 3}, r"no 'modle'; did you mean 'model'"),
        ({"train_dataloader.dataset.split.flod": 1}, r"did you mean 'fold'"),
        ({"flod": 1}, r"did you mean"),
    ],
)
def test_mistyped_option_names_the_nearest(option, message):
    with pytest.raises(ConfigError, match=message):
        load_config(_SMALL, option)


def test_an_option_may_add_what_the_class_takes():
    config = load_config(_SMALL, {"model.backbone.norm_eval": True, "train_dataloader.num_workers": 0})
    assert config.model.backbone.norm_eval is True


def test_a_parameter_reaches_every_place():
    config = load_config(_SMALL, {"fold": 3, "data_root": "elsewhere", "seed": 7})
    for part in ("train", "val", "test"):
        dataset = config[f"{part}_dataloader"].dataset
        assert (dataset.split.fold, dataset.data_root) == (3, "elsewhere")
    assert config.randomness.seed == config.train_dataloader.dataset.seed == 7


def test_another_split_scheme_replaces_the_whole_split_and_then_has_no_fold():
    scheme = {"scheme": "by_image_leaky", "seed": 0}
    config = load_config(_SMALL, {"split": scheme})
    assert config.test_dataloader.dataset.split == scheme
    with pytest.raises(ConfigError, match=r"no 'train_dataloader\.dataset\.split\.fold'"):
        load_config(_SMALL, {"split": scheme, "fold": 1})


def test_setting_one_data_set_does_not_reach_another():
    config = load_config(_SMALL, {"val_dataloader.dataset.split.fold": 4})
    assert config.train_dataloader.dataset.split.fold == 0


def test_list_entries_are_addressed_by_number(tmp_path):
    path = _write(tmp_path, "custom_hooks = [dict(type='pathzoo.engine.hooks.PreemptionHook', priority=50)]")
    with pytest.raises(ConfigError, match=r"custom_hooks\.0\.priority"):
        load_config(path)
    config = load_config(_write(tmp_path, "param_scheduler = [dict(type='mmengine.optim.LinearLR', begin=0)]"))
    set_options(config, {"param_scheduler.0.begin": 2}, "test")
    assert config.param_scheduler[0].begin == 2
    with pytest.raises(ConfigError, match=r"the config has no 'param_scheduler\.1'"):
        set_options(config, {"param_scheduler.1.begin": 2}, "test")


def test_a_runs_resolved_config_loads_again(tmp_path):
    config = load_config(_SMALL)
    path = _write(tmp_path, config.pretty_text)
    again = load_config(path)
    assert again.model.backbone.name == "resnet10t"
    check_config(again)


def test_config_is_found_below_the_packaged_ones_and_the_nearest_is_named():
    assert find_config(_SMALL).is_file()
    with pytest.raises(ConfigError, match=f"did you mean '{_SMALL}'"):
        find_config("configs/" + _SMALL.replace("20e", "2e"))


def test_accepted_keywords_follow_the_bases():
    class Base:
        def __init__(self, low=1, **kwargs): ...

    class Child(Base):
        def __init__(self, high, **kwargs): ...

    class Closed(Child):
        def __init__(self, only): ...

    assert accepted_keywords(Child) is None  # Base swallows the rest
    assert {"only"} <= accepted_keywords(Closed)
    assert "high" not in accepted_keywords(Closed)


def test_options_are_parsed_as_python_where_they_read_so():
    words = ["a=1", "b=1e-3", "c=None", "d=[1,2]", "e=text", "f=true", "g=1,2", "h=x,y", "i={'scheme': 's'}", "j=a=b"]
    assert parse_options(words) == {
        "a": 1, "b": 1e-3, "c": None, "d": [1, 2], "e": "text", "f": True, "g": (1, 2), "h": ["x", "y"],
        "i": {"scheme": "s"}, "j": "a=b",
    }  # fmt: skip
    with pytest.raises(ConfigError, match="expected KEY=VALUE"):
        parse_options(["epochs"])
