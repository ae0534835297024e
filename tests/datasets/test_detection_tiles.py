"""Tiles with boxes as a data set: samples, subsets, background, slides, and what is refused."""

import json
import os

import numpy as np
import pytest
import tifffile
from box_files import picture, write_coco, write_lab
from PIL import Image
from torch.utils.data import DataLoader

from pathzoo.datasets import TileDetection
from pathzoo.datasets.phantom import draw_biopsy
from pathzoo.datasets.sampling import SampleIndex, SeededSampler
from pathzoo.datasets.transforms import Mosaic
from pathzoo.errors import ConfigError, DataError, LeakageError
from pathzoo.wsi.slide import Slide

RATIOS = {"scheme": "patient_ratio", "ratios": {"train": 0.6, "val": 0.2, "test": 0.2}}
KEYS = {"img", "img_shape", "ori_shape", "gt_bboxes", "gt_bboxes_labels", "gt_ignore_flags", "img_path", "img_id"}
KEYS |= {"item", "patient", "slide", "x", "y", "downsample", "mpp", "sha256", "sample_idx", "sample_seed"}


@pytest.fixture
def lab(tmp_path):
    write_lab(tmp_path)
    return tmp_path


def data(lab, **options):
    return TileDetection("tiles.json", str(lab), **options)


def test_a_sample_is_what_the_file_says(lab):
    tiles = data(lab)
    sample = tiles[4]
    assert set(sample) == KEYS | {"sample_idx"} and len(tiles) == 20
    assert sample["img"].dtype == np.uint8 and sample["img_shape"] == sample["ori_shape"] == (60, 80)
    assert (
        sample["gt_bboxes"].tolist() == [[9, 3, 29, 18], [60, 40, 70, 50]] and sample["gt_bboxes"].dtype == np.float32
    )
    assert sample["gt_bboxes_labels"].tolist() == [0, 0] and sample["gt_ignore_flags"].tolist() == [False, True]
    assert (sample["img"][3:18, 9:29] == 40).all() and (sample["img"] == 40).sum() == 20 * 15 * 3
    assert [sample[name] for name in ("patient", "slide", "x", "y", "downsample", "mpp")] == [
        "P1",
        "S1",
        40,
        7,
        2.0,
        0.5,
    ]
    assert sample["item"] == "images/04.png" and tiles.metainfo["classes"] == ("glomerulus", "vessel")
    assert tiles[SampleIndex(4, 1)]["sample_seed"] != sample["sample_seed"] == tiles[4]["sample_seed"]
    sample["gt_bboxes"][:] = 0
    assert tiles[4]["gt_bboxes"].any()  # what a transform changes stays changed in its copy alone


def test_pictures_are_rgb(tmp_path):
    red = np.zeros((60, 80, 3), np.uint8)
    red[..., 0] = 250
    Image.fromarray(red).save(tmp_path / "a.png")
    sample = TileDetection(str(write_coco(tmp_path / "c.json", [({"file_name": "a.png"}, [])])))[0]
    assert sample["img"][0, 0].tolist() == [250, 0, 0] and sample["gt_bboxes"].shape == (0, 4)
    assert sample["patient"] is None and sample["x"] is None and sample["downsample"] == 1


def test_subsets_are_by_patient_and_say_what_they_hold(lab):
    parts = {name: data(lab, subset=name, split=RATIOS) for name in ("train", "val", "test")}
    patients = [{part.get_data_info(n)["patient"] for n in range(len(part))} for part in parts.values()]
    assert sum(map(len, patients)) == len(set().union(*patients)) == 5
    counts = parts["train"].describe()
    assert counts["n_images"] == 12 and (counts["n_with_objects"], counts["n_background"]) == (9, 3)
    assert (counts["n_boxes"], counts["n_ignored"], counts["n_patients"], counts["n_slides"]) == (9, 3, 3, 3)
    assert counts["per_class"]["glomerulus"] == {"n_images": 6, "n_patients": 3, "n_boxes": 6}
    assert parts["train"].get_cat_ids(0) == [0] and parts["train"].get_cat_ids(3) == []
    saved = lab / "splits.json"
    parts["train"].split.save(saved)
    assert data(lab, subset="test", split=str(saved)).data_digest == parts["test"].data_digest


def test_few_labels_leave_tiles_without_boxes(lab):
    split = {**RATIOS, "label_fraction": 0.4}
    few, rest = (data(lab, subset=name, split=split) for name in ("train", "unlabelled"))
    assert len(few) + len(rest) == 12 and 0 < len(few) < 12
    assert all(len(rest[n]["gt_bboxes"]) == 0 for n in range(len(rest)))


def test_the_digest_follows_boxes_flags_and_pixels(lab):
    before = data(lab).data_digest
    assert before == data(lab, pipeline=[]).data_digest
    document = json.loads((lab / "tiles.json").read_text())
    for change in ({"bbox": [1, 1, 9, 9]}, {"category_id": 2}, {"ignore": 1}):
        altered = [{**document["annotations"][0], **change}, *document["annotations"][1:]]
        (lab / "other.json").write_text(json.dumps({**document, "annotations": altered}))
        assert TileDetection("other.json", str(lab)).data_digest != before
    Image.fromarray(picture(ground=99)).save(lab / "images" / "03.png")
    assert data(lab).data_digest != before


def test_background_is_drawn_anew_each_epoch_and_evenly(lab):
    tiles = data(lab, background_rate=0.4)
    assert len(tiles) == 15 + 2

    def drawn(epoch):
        samples = [tiles.get_data_info(SampleIndex(n, epoch)) for n in range(len(tiles))]
        assert [len(s["gt_bboxes"]) > 0 for s in samples] == [True] * 15 + [False] * 2
        return [s["item"] for s in samples[15:]]

    epochs = [drawn(epoch) for epoch in range(10)]
    counts = {item: sum(epoch.count(item) for epoch in epochs) for items in epochs for item in items}
    assert len(counts) == 5 and set(counts.values()) == {4} and drawn(3) == epochs[3]
    assert len(data(lab, background_rate=0)) == 15
    part = data(lab, background_rate=0.4).get_subset(8)
    assert len(part) == 6 + 1
    for options in ({"background_rate": 1.5}, {"background_rate": 0.5, "test_mode": True}):
        with pytest.raises(ConfigError, match=r"^background_rate="):
            data(lab, **options)


def test_tiles_with_ignored_boxes_alone_are_drawn_in_each_epoch(tmp_path):
    tiles = []
    for number in range(6):
        Image.fromarray(picture(ground=100 + number)).save(tmp_path / f"{number}.png")
        box = [(1, [5, 5, 9, 9], {"ignore": number != 0})] if number < 3 else []
        tiles.append(({"file_name": f"{number}.png"}, box))
    path = str(write_coco(tmp_path / "c.json", tiles))
    drawn = TileDetection(path, background_rate=0)
    assert [drawn[n]["item"] for n in range(len(drawn))] == ["0.png", "1.png", "2.png"]
    counts = drawn.describe()
    assert [counts[name] for name in ("n_images", "n_with_objects", "n_ignored_alone", "n_background")] == [6, 1, 2, 3]
    assert len(TileDetection(path, background_rate=0.5)) == 3 + 2


@pytest.fixture
def slides(tmp_path):
    """Two slides with windows of them, one at half the resolution that goes beyond the edge."""
    tiles = []
    for name in "ab":
        picture, _ = draw_biopsy(ord(name), (520, 500), 1.0)
        tifffile.imwrite(
            tmp_path / f"{name}.tif",
            picture,
            tile=(128, 128),
            photometric="rgb",
            resolution=(10000, 10000),
            resolutionunit="CENTIMETER",
        )
        about = {"file_name": f"{name}.tif", "source": "slide", "slide": name, "patient": name}
        tiles.append(({**about, "x": 37, "y": 51, "mpp": 1.0, "downsample": 1.0}, [(1, [1, 2, 3, 4])]))
        tiles.append(({**about, "x": 400, "y": 420, "mpp": 2.0, "downsample": 2.0}, []))
    write_coco(tmp_path / "tiles.json", tiles)
    return tmp_path


def first(batch):
    return batch[0]


def test_windows_of_slides_are_what_the_slide_reads_in_workers_too(slides):
    tiles = data(slides)
    with Slide(slides / "a.tif") as slide:
        expected = [slide.read(37, 51, 80, 60), slide.read(400, 420, 80, 60, 2.0)]
    for index, pixels in enumerate(expected):
        np.testing.assert_array_equal(tiles[index]["img"], pixels)
    assert (expected[1][45:] == 255).all() and expected[0].std() > 5
    loader = DataLoader(tiles, batch_size=1, num_workers=2, sampler=SeededSampler(tiles, False), collate_fn=first)
    for number, sample in enumerate(loader):
        np.testing.assert_array_equal(sample["img"], tiles[number]["img"])
    assert len({tiles.get_data_info(n)["sha256"] for n in range(4)}) == 4


def test_windows_of_slides_are_found_through_a_link_to_the_files_folder(slides, tmp_path):
    """What the converter writes leads from the folder itself, not from the link to it."""
    document = json.loads((tmp_path / "tiles.json").read_text())
    folder = tmp_path / "deep" / "down" / "out"
    folder.mkdir(parents=True)
    for image in document["images"]:
        image["file_name"] = f"../../../{image['file_name']}"
    (folder / "tiles.json").write_text(json.dumps(document))
    (tmp_path / "link").symlink_to(folder, target_is_directory=True)
    straight, linked = (TileDetection(str(place / "tiles.json")) for place in (folder, tmp_path / "link"))
    assert len(linked) == len(straight) > 0
    for n in range(len(linked)):
        np.testing.assert_array_equal(linked[n]["img"], straight[n]["img"])
        assert linked[n]["item"] == straight[n]["item"]
    rooted = TileDetection("tiles.json", str(tmp_path / "link"))
    np.testing.assert_array_equal(rooted[0]["img"], straight[0]["img"])


def test_slides_that_do_not_fit_are_named(slides):
    document = json.loads((slides / "tiles.json").read_text())
    document["images"][0]["x"] = 5000
    (slides / "other.json").write_text(json.dumps(document))
    with pytest.raises(DataError, match=r"image 0: its corner \(5000, 51\) lies outside of .*a\.tif of 520 x 500 px"):
        TileDetection("other.json", str(slides))
    (slides / "b.tif").write_bytes(b"no slide")
    with pytest.raises(DataError, match=r"image 2: image .*b\.tif: .*\(and 1 more\)"):
        data(slides)
    kept = data(slides, on_bad_image="skip")
    assert len(kept) == 2 and len(kept.skipped) == 2
    (slides / "b.tif").unlink()
    with pytest.raises(DataError, match=r"no image file .*b\.tif"):
        data(slides, on_bad_image="skip")


def test_bad_pictures_and_arguments_are_refused(lab):
    Image.fromarray(picture((81, 60))).save(lab / "images" / "07.png")
    with pytest.raises(DataError, match=r"07\.png has 81 x 60 px, the file says 80 x 60"):
        data(lab)
    (lab / "images" / "07.png").write_bytes(b"")
    with pytest.raises(DataError, match="empty file"):
        data(lab)
    assert len(data(lab, on_bad_image="skip")) == 19
    with pytest.raises(ConfigError, match="on_bad_box='keep'"):
        data(lab, on_bad_box="keep")
    with pytest.raises(ConfigError, match="no category 'vesel'; did you mean 'vessel'"):
        data(lab, classes=["vesel"])
    with pytest.raises(ConfigError, match="put Mosaic first"):
        data(lab, on_bad_image="skip", pipeline=[dict, {"type": Mosaic, "size": 64}])


def test_one_picture_on_two_sides_is_a_leak(lab):
    os.replace(lab / "images" / "03.png", lab / "images" / "07.png")  # noqa: PTH105
    (lab / "images" / "03.png").write_bytes((lab / "images" / "07.png").read_bytes())
    kfold = {"scheme": "held_out_patients", "test": ["P0"]}
    with pytest.raises(LeakageError):
        data(lab, subset="train", split=kfold)


def test_mmdet_packs_a_sample(lab):
    pytest.importorskip("mmdet")
    from pathzoo.compat import mmcv_ops

    mmcv_ops.install()
    from mmdet.datasets.transforms import PackDetInputs

    from pathzoo.datasets.detection_tiles import DET_META_KEYS

    packed = data(lab, pipeline=[PackDetInputs(meta_keys=DET_META_KEYS)])[4]
    truth, ignored = packed["data_samples"].gt_instances, packed["data_samples"].ignored_instances
    assert truth.bboxes.tolist() == [[9, 3, 29, 18]] and ignored.bboxes.tolist() == [[60, 40, 70, 50]]
    assert truth.labels.tolist() == [0] and packed["inputs"].shape == (3, 60, 80)
    told = packed["data_samples"].metainfo
    assert [told[key] for key in ("item", "patient", "slide", "x", "y", "downsample", "mpp")] == [
        "images/04.png",
        "P1",
        "S1",
        40,
        7,
        2.0,
        0.5,
    ]


def test_mosaics_are_the_same_in_any_worker_and_differ_by_epoch(lab):
    tiles = data(lab, pipeline=[{"type": Mosaic, "size": (96, 64)}], background_rate=0.5)
    here = [tiles[SampleIndex(n, 2)] for n in range(6)]
    assert not np.array_equal(here[0]["img"], tiles[SampleIndex(0, 3)]["img"])
    assert any(len(sample["gt_bboxes"]) > 2 for sample in here) and "tile_pool" not in here[0]
    indices = [SampleIndex(n, 2) for n in range(6)]
    loader = DataLoader(tiles, batch_size=1, num_workers=2, sampler=indices, collate_fn=first)
    for sample, other in zip(here, loader, strict=True):
        np.testing.assert_array_equal(sample["img"], other["img"])
        np.testing.assert_array_equal(sample["gt_bboxes"], other["gt_bboxes"])


@pytest.mark.real
def test_aidpath_is_read_as_it_is(real_data):
    tiles = TileDetection("boxes_coco.json", str(real_data / "glomeruli" / "aidpath"))
    counts = tiles.describe()
    assert (counts["n_images"], counts["n_boxes"], counts["n_unknown_patient_images"]) == (16, 17, 16)
    assert tiles[0]["img"].shape == (1024, 1024, 3)
