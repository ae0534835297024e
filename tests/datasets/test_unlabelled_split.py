"""Who validates a pretext task, and who may not be learnt from: never who is tested on."""

import pytest
from tile_stores import SIZE, picture, store, write

from pathzoo.datasets import TileClassification, UnlabelledTiles
from pathzoo.datasets.packed_writer import packed_writer
from pathzoo.errors import LeakageError
from pathzoo.fileio import sha256_file


def test_val_share_keeps_patients_slides_and_files_together(tmp_path):
    seeds = list(range(40))
    patients = [f"P{seed // 5}" if seed < 20 else None for seed in seeds]
    packed = store(tmp_path / "p.safetensors", seeds, patients)
    options = {"source": str(packed), "size": SIZE, "val_share": 0.3}
    train, val = (UnlabelledTiles(**options, subset=name) for name in ("train", "val"))
    assert len(train) + len(val) == 40 and 8 <= len(val) <= 16
    assert train.split == val.split and train.split.scheme == "val_share"

    def groups(data):
        infos = [data.get_data_info(index) for index in range(len(data))]
        return {info["patient"] or info["slide"] for info in infos}

    assert not groups(train) & groups(val)
    again = UnlabelledTiles(**options, subset="val", split_seed=1, seed=9)
    assert groups(again) != groups(val)
    assert groups(UnlabelledTiles(**options, subset="val", seed=9)) == groups(val), "the seed of draws moves nobody"
    assert len(UnlabelledTiles(str(packed), size=SIZE)) == 40


def test_copies_of_trained_tiles_do_not_validate(tmp_path):
    seeds = [*range(20), 3, 7]
    with packed_writer(tmp_path / "p.safetensors", 22, (SIZE, SIZE)) as writer:
        for number, seed in enumerate(seeds):
            writer.add(picture(seed), f"{number}.png", patient=f"P{number}")
    found = [UnlabelledTiles(str(tmp_path / "p.safetensors"), SIZE, val_share=0.5, subset=s) for s in ("train", "val")]
    digests = [{data.get_data_info(index)["sha256"] for index in range(len(data))} for data in found]
    assert not digests[0] & digests[1]


@pytest.fixture
def tested(tmp_path):
    """A table of 8 patients with a saved split, whose P0 and P1 are tested on."""
    for number in range(16):
        write(tmp_path / "lab" / f"{number}.png", 100 + number)
    lines = [f"{number}.png,{'ab'[number % 2]},P{number // 2}" for number in range(16)]
    (tmp_path / "lab" / "t.csv").write_text("\n".join(["path,label,patient", *lines]) + "\n")
    split = {"scheme": "held_out_patients", "test": ["P0"], "val": ["P1"]}
    TileClassification(str(tmp_path / "lab" / "t.csv"), split=split, subset="train").split.save(tmp_path / "s.json")
    return tmp_path


def test_who_is_tested_on_is_not_learnt_from(tested, folder):
    table, held = str(tested / "lab" / "t.csv"), str(tested / "s.json")
    with pytest.raises(LeakageError, match=r"4 of 16 tiles .*s\.json keeps .* patient 'P0' .* stands in 'test'"):
        UnlabelledTiles(table, SIZE, held_out=held)
    data = UnlabelledTiles(table, SIZE, held_out=held, leave_out_tested=True)
    assert len(data) == 12 and data.describe()["n_held_out"] == 4
    assert not {"P0", "P1"} & {data.get_data_info(index)["patient"] for index in range(12)}
    with pytest.raises(LeakageError, match=r"4 of 16 .* 0\.png has the bytes of 0\.png in 'test'"):
        UnlabelledTiles(str(tested / "lab"), SIZE, held_out=held)  # the same files, patients unknown
    assert len(UnlabelledTiles(str(folder), SIZE, held_out=held)) == 12
    packed = tested / "p.safetensors"
    with packed_writer(packed, 1, (SIZE, SIZE)) as writer:
        writer.add(picture(100), "renamed", source_sha256=sha256_file(tested / "lab" / "0.png"))
    with pytest.raises(LeakageError, match="1 of 1 tiles"):
        UnlabelledTiles(str(packed), SIZE, held_out=held)
