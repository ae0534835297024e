"""COCO files of tiles for the tests of detection: pictures in which every object is a square of one grey value."""

import json

import numpy as np
from PIL import Image


def picture(size=(80, 60), squares=(), ground=200):
    """RGB (h, w, 3) of one grey value with squares (x0, y0, x1, y1) of a value each."""
    image = np.full((size[1], size[0], 3), ground, np.uint8)
    for (x0, y0, x1, y1), value in squares:
        image[y0:y1, x0:x1] = value
    return image


def write_coco(path, tiles, categories=("glomerulus", "vessel")):
    """tiles: (fields of the image, [(category number from 1, [x, y, w, h], further fields), ...])."""
    images, annotations = [], []
    for number, (fields, boxes) in enumerate(tiles):
        images.append({"id": number, "width": 80, "height": 60, **fields})
        for category, box, *more in boxes:
            row = {"id": len(annotations), "image_id": number, "category_id": category, "bbox": box}
            annotations.append({**row, **(more[0] if more else {})})
    names = [{"id": n, "name": name} for n, name in enumerate(categories, 1)]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": names}))
    return path


def write_lab(root, patients=5, tiles=4):
    """Tiles of patients, the last of each without an object, the first with an ignored box too."""
    (root / "images").mkdir()
    listed = []
    for number in range(patients * tiles):
        patient, place = divmod(number, tiles)
        x, y = 5 + number, 3 + 2 * place
        boxes = [] if place == tiles - 1 else [(1 + place % 2, [x, y, 20, 15])]
        image = picture(squares=[((x, y, x + 20, y + 15), 40)] if boxes else [], ground=200 + number)
        if place == 0:
            boxes.append((1, [60, 40, 10, 10], {"ignore": 1}))
        Image.fromarray(image).save(root / "images" / f"{number:02d}.png")
        about = {"file_name": f"images/{number:02d}.png", "patient": f"P{patient}", "slide": f"S{patient}"}
        listed.append(({**about, "x": 10 * number, "y": 7, "downsample": 2.0, "mpp": 0.5}, boxes))
    return write_coco(root / "tiles.json", listed)


def write_squares(root, side=96):
    """Five patients with four square tiles of 0.5 um per pixel each, in three of them a dark square."""
    (root / "images").mkdir(parents=True)
    tiles = []
    for number in range(20):
        x, y = 8 + number, 30 - number
        squares = [] if number % 4 == 3 else [((x, y, x + 40, y + 36), 60)]
        image = picture((side, side), squares, ground=200 + number)
        Image.fromarray(image).save(root / "images" / f"{number}.png")
        about = {"file_name": f"images/{number}.png", "width": side, "height": side, "mpp": 0.5}
        about |= {"patient": f"P{number // 4}", "slide": f"S{number // 4}"}
        tiles.append((about, [(1, [x, y, 40, 36]) for _ in squares]))
    write_coco(root / "tiles.json", tiles, categories=("glomerulus",))
    return root


def tiny_detection(root, side=96):
    """Options of the small detection configs for `write_squares`: an epoch of tiles of `side` px."""
    options = {"data_root": str(root), "train_cfg.max_epochs": 1, "train_cfg.val_interval": 1}
    options |= {"model_input.tile_size": (side, side), "model_input.mpp": 0.5, "train_dataloader.batch_size": 4}
    return options | {f"{part}_dataloader.dataset.pipeline.0.size": side for part in ("train", "val", "test")}
