"""Unlabelled tiles: from every kind of source, drawn alike by any number of workers."""

from collections import Counter

import cv2
import numpy as np
import pytest
import tifffile
from mmengine.dataset import default_collate
from mmpretrain.datasets.transforms import PackInputs
from tile_stores import SIZE, picture, store, write
from torch.utils.data import DataLoader

from pathzoo.apis.config import load_config
from pathzoo.apis.run_record import data_record
from pathzoo.datasets import UnlabelledTiles
from pathzoo.datasets.packed_writer import packed_writer
from pathzoo.datasets.sampling import SampleIndex, SeededSampler, mix_seed
from pathzoo.errors import ConfigError, DataError
from pathzoo.fileio import canonical_json, sha256_bytes, sha256_file


def slide(path, mpp=1.0):
    canvas = np.full((600, 800, 3), 245, np.uint8)
    canvas[100:500, 100:700] = (150, 80, 160)
    dots = {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path, canvas, tile=(256, 256), photometric="rgb", compression="zlib", metadata=None, **dots)
    return path


def test_a_folder_gives_every_tile_once(folder):
    data = UnlabelledTiles(str(folder), size=SIZE)
    samples = [data[index] for index in range(len(data))]
    assert [sample["item"] for sample in samples] == sorted(sample["item"] for sample in samples) and len(data) == 12
    sample = samples[0]
    assert (sample["img"] == picture(1)).all() and sample["img"].flags.writeable
    wanted = {"img", "img_shape", "ori_shape", "img_path", "item", "patient", "slide", "mpp", "sha256", "sample_idx"}
    assert set(sample) == {*wanted, "sample_seed", "x", "y"} and "gt_label" not in sample
    assert sample["img_shape"] == sample["ori_shape"] == (SIZE, SIZE)
    assert sample["item"] == "deep/er/01.png" and sample["sha256"] == sha256_file(sample["img_path"])
    assert sample["patient"] is sample["slide"] is sample["mpp"] is None
    assert data[SampleIndex(3, 5)]["sample_seed"] == mix_seed(0, 5, 3) and data[-1]["sample_idx"] == 11


def test_sources_are_mixed_and_keep_what_is_known(tmp_path, folder):
    write(tmp_path / "more" / "a.png", 50)
    (tmp_path / "more" / "t.csv").write_text("path,patient,mpp,x,y\na.png,P7,0.25,80,90\n")
    packed = store(tmp_path / "p.safetensors", [60, 61], ["P8", None])
    sources = [str(folder), tmp_path / "more" / "t.csv", packed, str(folder / "flat" / "00.png")]
    data = UnlabelledTiles(sources, size=SIZE)
    assert len(data) == 12 + 1 + 2 + 1
    listed, first, second, single = (data[index] for index in (12, 13, 14, 15))
    assert (listed["item"], listed["patient"], listed["mpp"], listed["x"]) == ("2/a.png", "P7", 0.25, 80)
    assert (first["item"], first["patient"], first["slide"], first["mpp"]) == ("3/60.png", "P8", "S15", 0.5)
    assert (first["img"] == picture(60)).all() and first["img"].flags.writeable
    assert first["img_path"] == str(packed) and second["patient"] is None
    assert first["sha256"] == sha256_bytes(picture(60).tobytes())
    assert single["item"] == "4/00.png" and (single["img"] == picture(0)).all()


def test_a_folder_with_a_table_is_read_by_it(folder):
    (folder / "tiles.csv").write_text("path,label,patient,mpp\nflat/00.png,a,P1,1.0\ndeep/er/01.png,,P2,1.0\n")
    data = UnlabelledTiles(str(folder), SIZE, mpp=1.0)
    assert [(data[index]["item"], data[index]["patient"]) for index in range(2)] == [
        ("flat/00.png", "P1"),
        ("deep/er/01.png", "P2"),
    ]
    assert len(data) == 2


def test_masks_are_not_tissue(folder, tmp_path):
    for name in ("flat_masks/00.png", "flat/00_mask.png", "labels/deep/1.png", "unmasked/02.png"):
        write(folder / name, 70)
    items = [UnlabelledTiles(str(folder), SIZE).get_data_info(index)["item"] for index in range(13)]
    assert "unmasked/02.png" in items and not [item for item in items if "_mask" in item or "labels" in item]
    write(tmp_path / "m" / "masks" / "1.png", 1)
    assert len(UnlabelledTiles(str(tmp_path / "m" / "masks"), SIZE)) == 1, "asked for by name"
    with pytest.raises(DataError, match=r"holds no picture .* but 1 masks"):
        UnlabelledTiles(str(tmp_path / "m"), SIZE)


def test_larger_pictures_give_windows_of_their_own_pixels(tmp_path):
    write(tmp_path / "pool" / "big.png", 0, (90, 70))
    whole = picture(0, (90, 70))
    data = UnlabelledTiles(str(tmp_path / "pool"), size=SIZE)
    places = set()
    for epoch in range(20):
        image = data[SampleIndex(0, epoch)]["img"]
        assert image.shape == (24, 24, 3)
        found = [(y, x) for y in range(47) for x in range(67) if (whole[y, x] == image[0, 0]).all()]
        match = [(y, x) for y, x in found if (whole[y : y + 24, x : x + 24] == image).all()]
        assert len(match) == 1
        places.add(match[0])
    assert len(places) > 15
    assert (data[SampleIndex(0, 3)]["img"] == data[SampleIndex(0, 3)]["img"]).all()
    assert UnlabelledTiles(str(tmp_path / "pool"), size=SIZE, window=40)[0]["img"].shape == (40, 40, 3)
    assert UnlabelledTiles(str(tmp_path / "pool"), size=SIZE, window=80)[0]["img"].shape == (70, 80, 3)


def test_pictures_are_brought_to_one_resolution(tmp_path):
    smooth = cv2.resize(picture(0, 8), (64, 64), interpolation=cv2.INTER_CUBIC)
    cv2.imwrite(str(tmp_path / "fine.png"), smooth)
    write(tmp_path / "native.png", 1, 32)
    (tmp_path / "t.csv").write_text("path,mpp\nfine.png,0.25\nnative.png,0.505\n")
    data = UnlabelledTiles(str(tmp_path / "t.csv"), size=32, mpp=0.5)
    fine, native = data[0], data[1]
    assert fine["img"].shape == (32, 32, 3) and fine["mpp"] == 0.5
    mean = cv2.cvtColor(smooth, cv2.COLOR_BGR2RGB).reshape(32, 2, 32, 2, 3).mean((1, 3))
    assert np.abs(fine["img"] - mean).max() <= 1
    assert (native["img"] == picture(1, 32)).all() and native["mpp"] == 0.505, "2 % off is left as it is"


def test_draws_are_even_over_whole_tiles(tmp_path):
    for number in range(4):
        write(tmp_path / "pool" / f"{number}.png", number)
    write(tmp_path / "pool" / "big.png", 9, (SIZE * 4 + 3, SIZE * 3 + 3))
    data = UnlabelledTiles(str(tmp_path / "pool"), size=SIZE, tiles_per_epoch=1600)
    assert len(data) == 1600
    counts = Counter(data.get_data_info(SampleIndex(index, 2))["item"] for index in range(1600))
    assert abs(counts["big.png"] - 1200) < 4 * np.sqrt(1600 * 0.75 * 0.25)
    assert all(abs(counts[f"{number}.png"] - 100) < 40 for number in range(4))
    other = [data.get_data_info(SampleIndex(index, 3))["item"] for index in range(1600)]
    assert other != [data.get_data_info(SampleIndex(index, 2))["item"] for index in range(1600)]
    with pytest.raises(IndexError, match="sample 1600 of 1600"):
        data[1600]


def test_slides_are_read_in_place_by_any_number_of_workers(tmp_path):
    write(tmp_path / "pool" / "a.png", 1, 40)
    slide(tmp_path / "pool" / "s.tif", mpp=1.0)
    pipeline = [{"type": PackInputs, "meta_keys": ("item", "x", "y", "sample_idx", "mpp")}]
    data = UnlabelledTiles(str(tmp_path / "pool"), size=SIZE, tiles_per_epoch=24, pipeline=pipeline)
    counts = data.describe()
    assert counts["n_images"] == 2 and counts["n_slides"] == 1 and counts["n_samples"] == 24

    def epoch(workers):
        sampler = SeededSampler(data, shuffle=True, seed=4)
        sampler.set_epoch(1)
        loader = DataLoader(data, 6, sampler=sampler, num_workers=workers, collate_fn=default_collate)
        batches = list(loader)
        images = np.concatenate([batch["inputs"].numpy() for batch in batches])
        return images, [(s.item, s.x, s.y, s.sample_idx) for batch in batches for s in batch["data_samples"]]

    (images, places), (again, same) = epoch(0), epoch(2)
    assert images.shape == (24, 3, 24, 24) and (images == again).all() and places == same
    assert sum(item == "s.tif" for item, *_ in places) > 18
    assert data[0]["data_samples"].mpp == pytest.approx(1.0)


def test_small_tiled_pictures_are_slides_that_windows_shrink_to(tmp_path):
    slide(tmp_path / "large.tif")
    canvas = np.full((20, 40, 3), (150, 80, 160), np.uint8)
    tifffile.imwrite(tmp_path / "small.tif", canvas, tile=(16, 16), photometric="rgb", metadata=None)
    data = UnlabelledTiles(str(tmp_path), size=SIZE, tiles_per_epoch=4000)
    assert {info["item"]: info["tiles"] for info in data._entries()}["small.tif"] == pytest.approx(20 * 40 / SIZE**2)
    drawn = [index for index in range(4000) if data.get_data_info(index)["item"] == "small.tif"]
    sample = data[drawn[0]]
    assert sample["img"].shape == (20, 20, 3) and sample["y"] == 0 and 0 <= sample["x"] <= 20
    assert data[0]["item"] == "large.tif" and data[0]["img"].shape == (24, 24, 3)
    with pytest.raises(DataError, match=r"small\.tif: 40 x 20 px, smaller than a tile of 21 px"):
        UnlabelledTiles(str(tmp_path), size=21, tiles_per_epoch=40)


def test_slides_want_a_number_of_draws(tmp_path):
    path = slide(tmp_path / "s.tif")
    with pytest.raises(ConfigError, match=r"s\.tif is a slide, .*tiles_per_epoch"):
        UnlabelledTiles(str(path), size=SIZE)


def test_validation_draws_its_share_of_an_epoch_from_slides_too(tmp_path):
    for number in range(5):
        slide(tmp_path / f"s{number}.tif", mpp=1 + number / 100)  # copies would stay on one side
    common = {"source": str(tmp_path), "size": SIZE, "tiles_per_epoch": 50, "val_share": 0.2}
    train, val = (UnlabelledTiles(**common, subset=subset) for subset in ("train", "val"))
    assert (len(train), len(val)) == (50, 10)
    assert not {info["item"] for info in train._entries()} & {info["item"] for info in val._entries()}
    assert len(UnlabelledTiles(**common | {"tiles_per_epoch": 2}, subset="val")) == 1
    config = load_config("simclr/simclr_resnet10t_1xb64_60e_unlabelled_small.py", {"tiles_per_epoch": 40})
    assert [config[f"{part}_dataloader"].dataset.tiles_per_epoch for part in ("train", "val")] == [40, 40]


def test_runs_record_it_as_any_data_set(tmp_path, folder):
    data = UnlabelledTiles(str(folder), SIZE, val_share=0.2, subset="train")
    record = data_record(data)
    assert record["dataset"] == "UnlabelledTiles" and record["digest"] == data.data_digest
    assert record["split"]["scheme"] == "val_share" and record["counts"]["n_images"] == len(data)
    assert record["synthetic"] is False
    (folder / "phantom.json").write_text("{}")
    assert data.synthetic
    drawn = UnlabelledTiles(str(store(tmp_path / "p.safetensors", [1, 2], phantom=True)), SIZE)
    assert drawn.synthetic and data_record(drawn)["synthetic"] is True
    write(folder / "more.png", 77)
    assert UnlabelledTiles(str(folder), SIZE).data_digest != UnlabelledTiles(str(folder / "flat"), SIZE).data_digest


def test_the_digest_of_packed_data_is_over_the_pixels_of_this_subset(tmp_path):
    def packed(name, seeds):
        with packed_writer(tmp_path / name, 6, (SIZE, SIZE)) as writer:
            for number, seed in enumerate(seeds):  # cut otherwise from the same six files
                writer.add(picture(seed), f"{number}.png", patient=f"P{number}", source_sha256=f"{number:064x}")
        return str(tmp_path / name)

    first = packed("a.safetensors", range(6))
    options = {"size": SIZE, "val_share": 0.5, "split_seed": 1}
    train = UnlabelledTiles(first, subset="train", **options)
    kept = sorted(train.get_data_info(index)["item"] for index in range(len(train)))
    digests = [[item, sha256_bytes(picture(int(item[0])).tobytes())] for item in kept]
    assert train.data_digest == sha256_bytes(canonical_json(digests))
    other = packed("b.safetensors", [seed if f"{seed}.png" in kept else seed + 50 for seed in range(6)])
    assert UnlabelledTiles(other, subset="train", **options).data_digest == train.data_digest
    changed = [UnlabelledTiles(path, subset="val", **options).data_digest for path in (first, other)]
    assert changed[0] != changed[1]


def test_a_part_of_the_data(folder):
    data = UnlabelledTiles(str(folder), SIZE, tiles_per_epoch=50)
    part = data.get_subset([2, 5])
    assert {part.get_data_info(index)["item"] for index in range(50)} == {"deep/er/05.png", "deep/er/11.png"}


def test_damage_is_named_or_left_out(folder):
    (folder / "flat" / "00.png").write_bytes((folder / "flat" / "00.png").read_bytes()[:-30])
    cv2.imwrite(str(folder / "flat" / "16bit.png"), np.full((SIZE, SIZE), 4000, np.uint16))
    cv2.imwrite(str(folder / "flat" / "rgb16.tif"), np.full((SIZE, SIZE, 3), 4000, np.uint16))
    with pytest.raises(DataError, match=r"image .*00\.png: truncated or damaged .* \(and 2 more\)"):
        UnlabelledTiles(str(folder), SIZE)
    data = UnlabelledTiles(str(folder), SIZE, on_bad_image="skip")
    assert len(data) == 11
    assert {record.path[-9:] for record in data.skipped} == {"at/00.png", "16bit.png", "rgb16.tif"}
    (folder / "flat" / "02.png").write_bytes(b"gone bad since")
    index = next(i for i in range(11) if data.get_data_info(i)["item"] == "flat/02.png")
    with pytest.raises(DataError, match=r"02\.png: cannot be decoded"):
        data[index]


def test_many_tiles_in_few_pictures_are_worth_a_word(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr("pathzoo.datasets.unlabelled.print_log", lambda text, **_: said.append(text))
    write(tmp_path / "pool" / "big.png", 0, (SIZE * 5, SIZE * 5))
    UnlabelledTiles(str(tmp_path / "pool"), SIZE)
    assert any("hold 25 whole tiles of 16 px, of which an epoch sees 1" in text for text in said)
    said.clear()
    UnlabelledTiles(str(tmp_path / "pool"), SIZE, tiles_per_epoch=25)
    assert not any("whole tiles" in text for text in said)


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"source": []}, ConfigError, r"source=\[\]"),
        ({"source": "gone"}, ConfigError, "gone: no such folder, table, store, slide or picture"),
        ({"source": "empty"}, DataError, r"empty: holds no picture .* and no slide, in"),
        ({"source": "pool/notes.md"}, ConfigError, r"notes\.md: \.md is no kind of source"),
        ({"size": 17}, DataError, r"deep/er/01\.png has 16 x 16 px, smaller than the crop of 17 px"),
        ({"size": 0}, ConfigError, "size=0: give a whole number above 0"),
        ({"window": 12}, ConfigError, "window=12 is smaller than size=16"),
        ({"tiles_per_epoch": 0}, ConfigError, "tiles_per_epoch=0"),
        ({"subset": "test"}, ConfigError, "subset='test'"),
        ({"subset": "val"}, ConfigError, r"val_share=0\.0 with subset='val'"),
        ({"val_share": 1.0}, ConfigError, r"val_share=1\.0"),
        ({"mpp": 0.5}, DataError, r"microns per pixel of deep/er/01\.png are not known, which mpp=0\.5 needs"),
        ({"held_out": "none.json"}, ConfigError, r"none\.json: no such split file"),
        ({"source": "pool/flat/00.png", "val_share": 0.5, "subset": "val"}, DataError, "all 1 tiles are of one file"),
    ],
)
def test_what_cannot_be_is_one_clear_line(folder, monkeypatch, change, kind, message):
    monkeypatch.chdir(folder.parent)
    (folder.parent / "empty").mkdir()
    (folder / "notes.md").write_text("")
    with pytest.raises(kind, match=message) as error:
        UnlabelledTiles(**{"source": str(folder), "size": SIZE, **change})
    assert "\n" not in str(error.value)


def test_a_picture_too_coarse_for_the_resolution(tmp_path):
    write(tmp_path / "a.png", 0, 64)
    (tmp_path / "t.csv").write_text("path,mpp\na.png,2.0\n")
    with pytest.raises(DataError, match=r"a\.png: 2 um/px is coarser than the 0\.5 um/px asked for"):
        UnlabelledTiles(str(tmp_path / "t.csv"), SIZE, mpp=0.5)


@pytest.mark.real
def test_real_slides_and_pictures(real_data):
    sources = [str(real_data / "slides" / "cmu_small_region.svs"), str(real_data / "histology_unlabelled" / "breast")]
    data = UnlabelledTiles(sources, 224, tiles_per_epoch=60)
    slide = [sample for sample in map(data.__getitem__, range(60)) if sample["slide"]]
    assert 3 < len(slide) < 57
    stained = [(np.ptp(sample["img"].astype(int), axis=2) > 15).mean() for sample in slide]
    assert not [sample for sample in map(data.get_data_info, range(60)) if "masks" in sample["img_path"]]
    assert np.median(stained) > 0.5, "places lie on tissue"
    assert all(sample["img"].shape == (336, 336, 3) and abs(sample["mpp"] - 0.499) < 0.001 for sample in slide)
