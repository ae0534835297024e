"""The tables of study 2: means, losses, paired gains and probes, against numbers worked out by hand."""

from studies.results import columns
from studies.simclr import ARMS, METRICS
from studies.simclr_table import FRACTIONS, table

_FIGURES = ("accuracy_tile", "nll_tile", "linear_accuracy_tile", "knn_accuracy_tile")


def _rows(values, seed, data="phantom", **changes):
    about = {"scale": "small", "data": data, "seed": str(seed), "status": "done", "n_images": "10", "n_patients": "5"}
    empty = dict.fromkeys(columns(METRICS), "") | about | changes
    return [
        empty | {"arm": arm} | dict(zip(_FIGURES, (f"{x:.4f}" for x in (value, 1 - value, 0.3, 0.2)), strict=True))
        for arm, value in values.items()
    ]


def _cells(text, *begin):
    lines = [[cell.strip() for cell in line.strip("| ").split("|")] for line in text.splitlines() if "|" in line]
    return next(cells[len(begin) :] for cells in lines if tuple(cells[: len(begin)]) == begin)


def test_accuracy_loss_and_the_studys_figures_stand_side_by_side():
    rows = _rows({"supervised, 5 %": 0.5, "supervised, 100 %": 0.9}, 100) + _rows({"supervised, 5 %": 0.7}, 101)
    cells = _cells(table(rows), "supervised", "none")
    assert cells[:2] == ["0.600 ± 0.141 (0.400)", "67.10 (1.595)"]
    assert cells[2:4] == ["–", "83.15 (0.5947)"]
    assert cells[6:] == ["0.900 (0.100)", "88.96 (0.3376)"]


def test_gains_are_paired_by_seed_and_fraction():
    rows = _rows({"supervised, 5 %": 0.5, "SimCLR, 5 %": 0.6, "SimCLR, 25 %": 0.9}, 100)
    rows += _rows({"supervised, 5 %": 0.7, "SimCLR, 5 %": 0.6}, 101)
    rows += _rows({"SimCLR, 5 %": 0.1}, 102)  # its partner has not run yet
    # gains +0.1 and -0.1: mean 0, deviation 0.141
    assert _cells(table(rows), "SimCLR", "supervised")[:2] == ["+0.000 ± 0.141 (1 of 2 above 0)", "–"]


def test_tiles_of_the_fraction_and_all_tiles_are_two_arms():
    end = ", pretext on all tiles"
    both = {"SimCLR, 5 %": 0.5, f"SimCLR, 5 %{end}": 0.8, f"SimCLR, kidney then breast, 5 %{end}": 0.9}
    text = table(_rows(both, 100))
    assert _cells(text, "SimCLR", "the fraction's")[0] == "0.500 (0.500)"
    assert _cells(text, "SimCLR", "all")[0] == "0.800 (0.200)"
    assert _cells(text, f"SimCLR, kidney then breast{end}", f"SimCLR{end}")[0] == "+0.100 (1 of 1 above 0)"


def test_probes_stand_apart():
    text = table(_rows({"supervised, 5 %": 0.5, "SimCLR, 5 %": 0.6}, 100))
    assert _cells(text, "random weights", "none")[:2] == ["0.300", "0.200"]


def test_every_arm_has_its_place_and_the_studys_own_have_a_figure():
    text = table(_rows({arm.name: 0.5 for arm in ARMS}, 100))
    measured = [cell for line in text.split("Gains")[0].splitlines() for cell in line.split("|") if "0.500" in cell]
    assert len(measured) == len(ARMS) == len({arm.name for arm in ARMS})
    study = {arm.method for arm in ARMS if arm.method in ("RotNet", "RotNet + jitter", "SimCLR", "supervised")}
    assert len(study) == 4
    for method in study - {"supervised"}:
        assert _cells(text, method, "the fraction's")[1].endswith(")")


def test_the_grid_is_the_studys_and_both_pretext_data():
    grid = {(arm.method, arm.fraction, arm.everything) for arm in ARMS}
    methods = ("RotNet", "RotNet + jitter", "SimCLR", "SimCLR, kidney then breast")
    wanted = {(method, fraction, every) for method in methods for fraction in FRACTIONS for every in (False, True)}
    assert wanted | {("supervised", 1.0, False)} | {("supervised", f, False) for f in FRACTIONS} <= grid


def test_an_arm_without_data_reads_not_run():
    rows = _rows({"SimCLR, kidney then breast, 5 %": 0}, 0, status="not run", note="no tiles of kidney at hand")
    assert "- SimCLR, kidney then breast, 5 %: no tiles of kidney at hand" in table(rows)
    assert table([]) == "No rows yet."


def test_rows_of_older_settings_are_left_out_and_told():
    old = _rows({"SimCLR, 5 %": 0.1, "supervised, 5 %": 0.5}, 100, config_digest="old")
    old += _rows({"SimCLR, 5 %": 0.1}, 101, config_digest="old")
    text = table(old + _rows({"SimCLR, 5 %": 0.9}, 101, config_digest="new"))
    assert _cells(text, "SimCLR", "the fraction's")[0] == "0.900 (0.100)"
    assert _cells(text, "supervised", "none")[0] == "0.500 (0.500)", "settings of another arm are its own"
    assert "Left out: 1 row made with other settings" in text and "SimCLR, 5 % (seed 100)" in text
    assert "Left out" not in table(old)


def test_at_the_papers_scale_the_first_vectors_are_not_called_random():
    rows = _rows({"supervised, 5 %": 0.5}, 0, scale="paper")
    assert _cells(table(rows), "initial weights", "none")[:2] == ["0.300", "0.200"]
