"""The grid of study 5: who is trained on what, what is shared and skipped, and the tables, by numbers worked out."""

import shutil
from argparse import Namespace

import pytest
from slice_stores import write_slices
from studies import kits_pix2pix
from studies.kits_pix2pix_table import table
from studies.results import Results, columns

from pathzoo.ct.store import SliceStore
from pathzoo.datasets.phantom import write_ct
from pathzoo.errors import ConfigError

_NOTHING, _GEOMETRIC, _DRAWN, _BOTH = (f"U-Net1, {scenario}" for scenario in kits_pix2pix._SCENARIOS)
_UNTRAINED, _SHUFFLED = (arm.name for arm in kits_pix2pix.ARMS if arm.control)
_SMALL_UNET = [_NOTHING, _GEOMETRIC, _DRAWN, _BOTH, _UNTRAINED, _SHUFFLED]


class Recorder:
    """Stands in for training, drawing and testing, and writes what they leave behind."""

    def __init__(self):
        self.segmenters, self.translators, self.drawings, self.tested = [], [], [], []

    def train(self, file, work, resume, options, seed):
        assert resume
        work.mkdir(parents=True, exist_ok=True)
        (work / "epoch_40.pth").touch()
        (self.translators if "pix2pix_unet" in file else self.segmenters).append((file, work, options, seed))

    def synthesize(self, file, checkpoint, out, drawing, options, overwrite):
        out.mkdir(parents=True, exist_ok=True)
        self.drawings.append((checkpoint, out, drawing, options))

    def report(self, cfg, model, out):
        (out / "report.json").touch()
        return {"quality": None, "kid": None, "memorised": {"flagged": 0}}

    def test(self, file, work_dir, options):
        assert (work_dir / "epoch_40.pth").exists()
        self.tested.append(options)
        return [{"metric": "slice_iou", "level": "slice", "value": 0.5, "low": None, "high": None}]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_slices(tmp_path_factory.mktemp("study") / "store")


@pytest.fixture
def recorder(monkeypatch):
    found = Recorder()
    for name in ("train", "test", "synthesize"):
        monkeypatch.setattr(kits_pix2pix, name, getattr(found, name))
    monkeypatch.setattr(kits_pix2pix, "report_synthesis", found.report)
    monkeypatch.setattr(kits_pix2pix, "load_generator", lambda *arguments: None)
    return found


def run(tmp_path, store, **changes):
    usual = {"scale": "small", "data_root": str(store), "data_name": None, "seeds": 1, "first_seed": 7}
    usual |= {"arms": _SMALL_UNET, "cfg_options": [], "weights": [], "keep": False}
    results = Results(tmp_path / "results.csv", kits_pix2pix.METRICS)
    kits_pix2pix.run(Namespace(**usual | changes), results, tmp_path / "work")
    return results.rows()


def test_arms_differ_in_augmentation_and_drawn_slices_alone(recorder, tmp_path, store):
    rows = run(tmp_path, store)
    assert [row["arm"] for row in rows] == _SMALL_UNET
    assert len({row["config_digest"] for row in rows}) == len(_SMALL_UNET)
    assert {seed for *_, seed in recorder.segmenters} == {7}
    assert len({work for _, work, _, _ in recorder.segmenters}) == len(_SMALL_UNET)
    options = [given for _, _, given, _ in recorder.segmenters]
    assert recorder.tested == options, "tested as trained"
    assert [given["augment"] for given in options] == [0, 1, 0, 1, 0, 0]
    folders = [given.get("synthetic") for given in options]
    assert folders[:2] == [None, None]
    assert folders[2] == folders[3] and len(set(folders[2:])) == 3, "scenarios 3 and 4 see the same drawn slices"
    rest = [{key: given[key] for key in given if key not in ("augment", "synthetic")} for given in options]
    assert all(each == rest[0] for each in rest)
    assert not list((tmp_path / "work").glob("????????????")), "nothing is kept of what is done"


def test_one_generator_for_all_arms_of_a_seed_and_controls_draw_the_same_maps(recorder, tmp_path, store):
    run(tmp_path, store, arms=[*_SMALL_UNET, "U-Net2, 3 drawn"], seeds=2)
    assert [seed for *_, seed in recorder.translators] == [7, 8]
    assert len(recorder.drawings) == 2 * 3
    for seed in (7, 8):
        mine = {drawing.control: (checkpoint, drawing) for checkpoint, _, drawing, _ in recorder.drawings
                if drawing.seed == seed}  # fmt: skip
        assert set(mine) == {None, "untrained", "shuffled"}
        assert mine["untrained"][0] is None and mine[None][0] == mine["shuffled"][0] is not None
        assert len({(d.count, d.augmentation, d.noise) for _, d in mine.values()}) == 1
    assert {options["data_root"] for *_, options in recorder.drawings} == {str(store)}


def test_a_rerun_trains_nothing_and_other_settings_train_what_they_touch(recorder, tmp_path, store):
    run(tmp_path, store)
    assert len(run(tmp_path, store)) == len(recorder.segmenters) == len(_SMALL_UNET)
    assert len(recorder.translators) == 1
    rows = run(tmp_path, store, cfg_options=["generator.model.pixel_loss_weight=10.0"])
    assert [row["arm"] for row in rows[len(_SMALL_UNET) :]] == [_DRAWN, _BOTH, _UNTRAINED, _SHUFFLED]
    assert len(recorder.translators) == 2
    assert len(run(tmp_path, store, cfg_options=["window_centre=40"])) == len(rows) + len(_SMALL_UNET)
    assert recorder.drawings[-1][3]["window_centre"] == 40, "the translator's too"


def test_what_a_broken_drawing_left_is_drawn_again(recorder, tmp_path, store, monkeypatch):
    with monkeypatch.context() as broken:
        broken.setattr(kits_pix2pix, "report_synthesis", lambda *arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(tmp_path, store, arms=[_DRAWN])
    assert not recorder.segmenters
    run(tmp_path, store, arms=[_DRAWN])
    assert (len(recorder.translators), len(recorder.drawings), len(recorder.segmenters)) == (1, 2, 1)


def test_the_fpn_without_weights_of_imagenet_says_so(recorder, tmp_path, store):
    (row,) = run(tmp_path, store, arms=["FPN, 1 nothing"])
    assert (row["status"], row["note"]) == ("done", "encoder from scratch")
    assert "| FPN, 1 nothing (encoder from scratch) | 7 |" in table([row])
    assert "| FPN, 1 nothing (encoder from scratch) | 2 (7, 8) |" in table([row, row | {"seed": "8"}])
    (row, other) = run(tmp_path, store, arms=["U-Net1, 1 nothing"])
    assert other["note"] == ""
    (*_, last) = run(tmp_path, store, arms=["FPN, 1 nothing"], scale="paper")
    assert (last["status"], last["slice_iou_slice"]) == ("not run", "")
    assert len(recorder.segmenters) == 2
    with pytest.raises(ConfigError, match="no arm"):
        run(tmp_path, store, arms=["U-Net3, 1 nothing"])


def _rows(values, seed, data="phantom"):
    empty = dict.fromkeys(columns(kits_pix2pix.METRICS), "")
    about = {"scale": "small", "data": data, "seed": str(seed), "status": "done", "n_images": "10", "n_patients": "5"}
    return [empty | about | {"arm": arm, "slice_iou_slice": f"{value:.4f}"} for arm, value in values.items()]


def _lines(text, arm):
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if f"| {arm} |" in line]


def test_gains_are_paired_by_seed_and_controls_are_held_against_the_first_scenario():
    rows = _rows({_NOTHING: 0.5, _GEOMETRIC: 0.7, _DRAWN: 0.6, _BOTH: 0.6, _UNTRAINED: 0.5}, 100)
    rows += _rows({_NOTHING: 0.6, _GEOMETRIC: 0.7, _DRAWN: 0.85, _BOTH: 0.6, _UNTRAINED: 0.4}, 101)
    rows += _rows({_DRAWN: 0.1}, 102)  # its partner has not run yet, so means leave it out
    rows += [row for seed in (0, 1, 2) for row in _rows({"U-Net2, 1 nothing": 0.3}, seed)]
    text = table(rows)
    heads = next(line for line in text.splitlines() if line.startswith("| arm |"))
    gain = [cell.strip() for cell in heads.split("|")[1:-1]].index("drawn slices gain in IoU")
    found = {arm: _lines(text, arm)[0] for arm in (_NOTHING, _DRAWN, _BOTH, _UNTRAINED)}
    assert all(len(cells) == heads.count("|") - 1 for cells in found.values())
    assert [*found[_NOTHING][1:3], found[_NOTHING][gain]] == ["2 (100, 101)", "0.550 ± 0.071", "–"]
    assert _lines(text, "U-Net2, 1 nothing")[0][1:3] == ["3 (0 to 2)", "0.300 ± 0.000"]
    # gains 0.10 and 0.25: mean 0.175, deviation 0.106
    assert found[_DRAWN][1:3] == ["2 (100, 101)", "0.725 ± 0.177"]
    assert found[_DRAWN][gain] == "+0.175 ± 0.106 (2 of 2 above 0)"
    assert found[_BOTH][gain] == "-0.100 ± 0.000 (0 of 2 above 0)"
    assert found[_UNTRAINED][gain] == "-0.100 ± 0.141 (0 of 2 above 0)"
    assert (found[_DRAWN][-1], found[_UNTRAINED][-1]) == ("88.70", "–")


def test_the_study_stands_beside_a_single_seed_too():
    text = table(_rows({_NOTHING: 0.5, _UNTRAINED: 0.5}, 0, data="real"))
    assert "means" not in text
    heads = [cell.strip() for cell in next(line for line in text.splitlines() if "| arm |" in line).split("|")[1:-1]]
    assert heads[-1] == "the study, IoU in %"
    (first,), (control,) = _lines(text, _NOTHING), _lines(text, _UNTRAINED)
    assert (len(first), first[-1], control[-1]) == (len(heads), "58.51", "–")
    missing = _rows({"FPN, 1 nothing": 0}, 0)[0] | {"status": "not run", "note": "no weights", "slice_iou_slice": ""}
    (line,) = _lines(table([missing]), "FPN, 1 nothing")
    assert (line[3], line[-1], len(line)) == ("not run: no weights", "88.98", len(heads))


def test_a_folder_with_other_cases_is_another_store(tmp_path):
    root = write_ct(tmp_path / "cases", patients=10, size=(64, 64), slices=12)
    arguments = Namespace(data_root=str(root), scale="small")
    first = kits_pix2pix._store(arguments, tmp_path / "work", 0)
    assert kits_pix2pix._store(arguments, tmp_path / "work", 0) == first
    write_ct(root, patients=11, size=(64, 64), slices=12)
    bare = root / "case_99999"  # as KiTS19's own test cases come
    shutil.copytree(next(path for path in sorted(root.iterdir()) if path.is_dir()), bare)
    (bare / "segmentation.nii.gz").unlink()
    more = kits_pix2pix._store(arguments, tmp_path / "work", 0)
    patients = [
        {record.patient for subset in ("train", "val", "test") for record in SliceStore(folder).records(subset)}
        for folder in (first, more)
    ]
    assert [len(names) for names in patients] == [10, 11]


def test_seeds_that_deal_the_same_slices_differently_stand_in_one_table(recorder, tmp_path):
    root = write_ct(tmp_path / "cases", patients=10, size=(64, 64), slices=12)
    rows = run(tmp_path, root, arms=[_NOTHING], seeds=2, data_name="cohort")
    assert len({row["data_digest"] for row in rows}) == 2, "not the same run"
    assert "| U-Net1, 1 nothing | 2 (7, 8) |" in table(rows) and "Left out" not in table(rows)
    write_ct(root, patients=11, size=(64, 64), slices=12)
    rows = run(tmp_path, root, arms=[_NOTHING], seeds=1, data_name="cohort")
    assert len(rows) == 3 and "Left out: 1 row" in table(rows), "other slices"


def test_what_the_arms_set_is_refused_as_an_option(recorder, tmp_path, store):
    for option in ("augment=1.0", "synthetic=drawn", "data_root=elsewhere"):
        with pytest.raises(ConfigError, match=f"--cfg-options {option}: the arms set it; choose them by --arms"):
            run(tmp_path, store, cfg_options=[option])
