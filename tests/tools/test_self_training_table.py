"""The tables of study 1: means, paired gains, and what the label review found, against numbers worked out by hand."""

from studies.results import columns
from studies.self_training import ARMS, METRICS
from studies.self_training_table import table

_FULL, _FEW, _SELF = "supervised, 100 %", "supervised, 35 %", "self-training, 35 %"


def _rows(values, seed, data="phantom", end=""):
    empty = dict.fromkeys(columns(METRICS), "")
    about = {"scale": "small", "data": data, "seed": str(seed), "status": "done", "n_images": "10", "n_patients": "5"}
    return [empty | about | {"arm": f"{arm}{end}", "miou_pixel": f"{value:.4f}"} for arm, value in values.items()]


def test_gain_and_closed_distance_are_paired_by_seed():
    rows = _rows({_FULL: 0.8, _FEW: 0.6, _SELF: 0.7}, 100) + _rows({_FULL: 0.9, _FEW: 0.5, _SELF: 0.75}, 101)
    rows += _rows({_SELF: 0.1}, 102)  # its partners have not run yet
    line = next(line for line in table(rows).splitlines() if line.startswith(f"| {_SELF} |"))
    # gains 0.10 and 0.25: mean 0.175, deviation 0.106; distances 0.2 and 0.4: 0.175 / 0.3
    assert "+0.175 ± 0.106 (2 of 2 above 0) | 58 %" in line
    assert line.split("|")[2].strip() == "3"


def test_noisy_arms_are_held_against_noisy_ones():
    end = ", 20 % inconsistent"
    rows = _rows({_FULL: 0.9, _FEW: 0.8}, 100) + _rows({_FULL: 0.9, _FEW: 0.8}, 101)
    rows += _rows({_FULL: 0.7, _FEW: 0.5, _SELF: 0.4}, 100, end=end) + _rows(
        {_FULL: 0.7, _FEW: 0.5, _SELF: 0.4}, 101, end=end
    )
    line = next(line for line in table(rows).splitlines() if line.startswith(f"| {_SELF}{end} |"))
    assert "-0.100 ± 0.000 (0 of 2 above 0) | -50 %" in line


def test_the_study_stands_beside_the_arms_that_are_its_own():
    rows = _rows({arm.name: 0.5 for arm in ARMS}, 100) + _rows({arm.name: 0.5 for arm in ARMS}, 101)
    lines = {line.split("|")[1].strip(): line for line in table(rows).splitlines() if line.startswith("| ")}
    assert lines[_FULL].endswith("0.97 / 0.98 / 0.99 |")
    assert lines["self-training, 35 %, all pixels (study)"].endswith("0.93 / 0.95 / 0.98 |")
    assert lines[_FEW].endswith("| – |")


def test_the_review_is_a_sentence():
    rows = _rows({_FEW: 0.5}, 100) + _rows({_FEW: 0.5}, 101)
    for seed, share in ((100, "0.5000"), (101, "1.0000")):
        rows += [row | {"miou_pixel": "", "flipped_in_first_fifth_region": share} for row in _rows({"review": 0}, seed)]
    text = table(rows)
    assert "75 % stand in the first fifth of the ranking (chance: 20 %; by seed: 50 %, 100 %)" in text
    assert "50 % of the exchanged in the first fifth" in text


def test_one_seed_has_no_means_and_a_newer_row_replaces_an_older():
    rows = _rows({_FEW: 0.5}, 0, data="real") + _rows({_FEW: 0.6}, 0, data="real")
    text = table(rows)
    assert "means" not in text and "0.600" in text and "0.500" not in text


def test_rows_of_older_settings_and_of_other_scales_are_not_averaged():
    rows = _rows({_FEW: 0.1}, 100) + [row | {"config_digest": "new"} for row in _rows({_FEW: 0.6}, 101)]
    rows += [row | {"config_digest": "new"} for row in _rows({_FEW: 0.8}, 102)]
    rows += [row | {"scale": "paper"} for row in _rows({_FEW: 0.9}, 101) + _rows({_FEW: 0.9}, 102)]
    text = table(rows)
    assert "phantom, small scale, means over seeds" in text and "phantom, paper scale, means over seeds" in text
    lines = [line for line in text.split("Every run")[0].splitlines() if line.startswith(f"| {_FEW} |")]
    assert [line.split("|")[2:4] for line in lines] == [[" 2 ", " 0.700 ± 0.141 "], [" 2 ", " 0.900 ± 0.000 "]]
    assert "Left out: 1 row made with other settings" in text
    assert f"phantom, small scale, {_FEW} (seed 100)" in text
