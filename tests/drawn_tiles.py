"""Small folders of drawn regions for the tests: whose label maps they have is given, and their pixels say which."""

import csv
import json
from dataclasses import replace

from region_tables import picture

from pathzoo.datasets.breast_lesions import BreastLesions
from pathzoo.datasets.drawn_regions import PARENT_TABLE, record_digest
from pathzoo.datasets.drawn_regions_writer import drawn_region_writer
from pathzoo.datasets.region_patches import cut
from pathzoo.datasets.region_table import ClassList, default_palette

SIDE = 16


def write_drawn(folder, lab, sources, record=None, classes=None, copy_of=None, **changes):
    """Drawn regions of 16 px, each with the label map at the upper left of a region (item) of `lab`.

    `changes` are made to what the first one inherits; `copy_of` is an item whose very picture and mask it gets.
    """
    data = BreastLesions(str(lab))
    index_of = {region.item: index for index, region in enumerate(data.regions)}
    classes = classes or ClassList(tuple(data.metainfo["classes"]), default_palette(3))
    record = {PARENT_TABLE: data.table_digest} if record is None else record
    with drawn_region_writer(folder, classes, record) as writer:
        for number, source in enumerate(sources):
            region, labels = data.regions[index_of[source]], data.read_labels(index_of[source])
            given = replace(region, **changes) if number == 0 else region
            tile = cut(labels, 0, 0, SIDE, 255)
            writer.add(picture(SIDE, SIDE, 100 + number), tile, given, 0, 0)
            if number == 0 and copy_of:
                own = data.regions[index_of[copy_of]]
                _put(folder, writer, own)
    return folder


def _put(folder, writer, region):
    """Puts the bytes of a real region in place of the first drawn one, as a careless hand would before the record."""
    place = writer._folder
    (place / "images" / "drawn_000000.png").write_bytes(region.image.read_bytes())
    (place / "masks" / "drawn_000000.png").write_bytes(region.mask.read_bytes())
    writer._items["images/drawn_000000.png"] |= {"sha256": region.sha256, "mask_sha256": region.mask_sha256}


def edit_record(folder, **changes):
    """Changes synthetic.json as its writer would have, digest and all."""
    content = json.loads((folder / "synthetic.json").read_text()) | changes
    (folder / "synthetic.json").write_text(json.dumps(content | {"digest": record_digest(content)}))


def table_rows(folder):
    with (folder / "regions.csv").open(newline="") as file:
        return list(csv.DictReader(file))
