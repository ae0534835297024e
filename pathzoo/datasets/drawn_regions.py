"""Drawn regions: tiles that a network drew from label maps of training patients, and where they may be used.

    DRAWN/synthetic.json    what drew them from which table; of each its region, place and digests; its own digest
    DRAWN/regions.csv, classes.json, images/, masks/    as a lab's own regions (`pathzoo.datasets.region_table`)

`tools/synthesize.py` writes such a folder (`pathzoo.datasets.drawn_regions_writer`), and training adds it by
`RegionSegmentation(synthetic=DRAWN)`. Nothing is ever judged on it. Needs no torch.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pathzoo.datasets.inventory import scan_images
from pathzoo.datasets.leakage import KEPT_OUT
from pathzoo.datasets.masks import scan_masks, value_lookup
from pathzoo.datasets.region_files import Region, region_entry
from pathzoo.datasets.region_table import read_classes, read_region_table
from pathzoo.datasets.split_caveats import CAVEATS
from pathzoo.datasets.splits import Split
from pathzoo.errors import ConfigError, DataError, LeakageError
from pathzoo.fileio import canonical_json, sha256_bytes

FORMAT = 1
RECORD, TABLE, CLASS_FILE = "synthetic.json", "regions.csv", "classes.json"
#: Key of the record: `table_digest` of the regions that the label maps are from.
PARENT_TABLE = "parent_table"
GIVE_REAL = "give the table of real regions as data_root and ann_file, and this folder as synthetic=... of training"
LEAVE_OUT = "leave it out; RegionSegmentation alone takes drawn pictures, as synthetic=... of training"
_ANEW = "draw them anew (tools/synthesize.py) from this table's training subset"


def is_drawn(folder: str | Path) -> bool:
    """Whether a folder holds drawn regions, by its synthetic.json."""
    return Path(folder, RECORD).is_file()


def table_digest(entries: Sequence[Mapping[str, Any]], value_map: Mapping[int, int] | None) -> str:
    """SHA-256 over all regions of a table: item, bytes of picture and mask, patient and slide; and over `value_map`.

    Args:
        entries: of `region_entry`, of all subsets.
        value_map: of the data set: the same mask means something else by another.
    """
    regions = [entry["region"] for entry in entries]
    rows = sorted([r.item, r.sha256, r.mask_sha256 or "", r.patient or "", r.slide or ""] for r in regions)
    mapped = None if value_map is None else sorted([int(value), index] for value, index in value_map.items())
    return sha256_bytes(canonical_json([rows, mapped]))


def record_digest(record: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON of synthetic.json without its own digest."""
    return sha256_bytes(canonical_json({key: value for key, value in record.items() if key != "digest"}))


def read_record(folder: str | Path) -> dict[str, Any]:
    """What synthetic.json says: format, drawn, the keys of `tools/synthesize.py`, items, digest.

    `items` has of each drawn region the `source` (item of the real one), `x` and `y` (its place there, pixels),
    `sha256` and `mask_sha256` (of the files' bytes).

    Raises:
        ConfigError: no such folder, or one of real regions.
        DataError: it cannot be read, is of another format, or was changed.
    """
    path = Path(folder, RECORD)
    if not path.is_file():
        raise ConfigError(
            f"synthetic: {folder} has no {RECORD}, so it holds no drawn regions: give a folder that "
            f"tools/synthesize.py wrote{', or this one as data_root' if Path(folder, TABLE).is_file() else ''}"
        )
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not JSON ({error}): copy the folder again, or {_ANEW}") from None
    if not isinstance(record, dict) or (record.get("format"), record.get("drawn")) != (FORMAT, "regions"):
        raise DataError(f"{path}: tells of no drawn regions of format {FORMAT}: {_ANEW}")
    if record.get("digest") != record_digest(record):
        raise DataError(f"{path} was changed after it was written (its digest differs): restore it, or {_ANEW}")
    return record


def check_synthetic(subset: str | None, synthetic: Any) -> None:
    """Raises where drawn regions are asked for outside of training.

    Raises:
        LeakageError: names the subset.
    """
    if synthetic is not None and subset != "train":
        raise LeakageError(
            f"synthetic={str(synthetic)!r}: drawn regions are for subset='train', not {subset!r}: what is judged is "
            "real; leave synthetic out here"
        )


def refuse_as_data(places: Iterable[str | Path], subset: str, remedy: str = GIVE_REAL) -> None:
    """Raises where drawn regions are given in the place of real ones: their table, their folder, or their pictures.

    Args:
        places: files; a synthetic.json in any folder above one of them says that it was drawn.
        subset: what they are asked for.
        remedy: what to do about it.

    Raises:
        LeakageError: to validate or test on.
        ConfigError: otherwise; no split of theirs tells whom they were made from.
    """
    lowest = {Path(place).absolute().parent for place in places}
    drawn = sorted(folder for folder in {above for one in lowest for above in (one, *one.parents)} if is_drawn(folder))
    if not drawn:
        return
    if subset in KEPT_OUT:
        raise LeakageError(
            f"{drawn[0]}: holds drawn regions, and nothing is judged on those (subset={subset!r}): {remedy}"
        )
    raise ConfigError(f"{drawn[0]}: holds drawn regions and no split of their own: {remedy}")


def drawn_entries(
    folder: str | Path,
    real: Sequence[Mapping[str, Any]],
    split: Split,
    classes: Sequence[str],
    mpp: float | None,
    parent: str,
) -> list[dict[str, Any]]:
    """The drawn regions of a folder, once all of them may be trained on beside the real ones.

    Args:
        folder: that `tools/synthesize.py` wrote.
        real: entries of all real regions of the table, of all subsets.
        split: of the real ones.
        classes: names.
        mpp: where the table gives none.
        parent: `table_digest` of the real ones.

    Returns:
        As `region_entry`, in the order of the folder's table; `region.source` is set.

    Raises:
        ConfigError: no folder of drawn regions.
        DataError: other classes, another table, a file that is missing, damaged, changed or not on record.
        LeakageError: another split; names the drawn region, and the patient or real region that is not trained on.
    """
    folder = Path(folder)
    record = read_record(folder)
    _refuse_misfit(folder, record, classes, parent)
    entries = _read(folder, record["items"], classes, mpp)
    _refuse_leaking(folder, [entry["region"] for entry in entries], [entry["region"] for entry in real], split)
    if record.get("split") not in (None, split.digest):
        # Its patients may all be trained on here, and the generator have seen others, who are not.
        raise LeakageError(
            f"synthetic: {folder} was drawn under another split (digest {str(record['split'])[:12]}) than this one "
            f"({split.digest[:12]}), so its generator may have seen who is tested on here: give the fold, seed and "
            f"label_fraction that it was drawn with, or {_ANEW}"
        )
    return entries


def _refuse_misfit(folder: Path, record: Mapping[str, Any], classes: Sequence[str], parent: str) -> None:
    listed = read_classes(folder / CLASS_FILE)
    found = "none (no classes.json)" if listed is None else ", ".join(listed.classes)
    if listed is None or listed.classes != tuple(classes):
        raise DataError(f"synthetic: {folder} has the classes {found}, the real regions {', '.join(classes)}: {_ANEW}")
    if record.get(PARENT_TABLE) != parent:
        raise DataError(
            f"synthetic: {folder} was made from another table (digest {str(record.get(PARENT_TABLE))[:12]}) than this "
            f"one ({parent[:12]}), where the same names may be other patients, pictures or labels: {_ANEW}"
        )


def _read(
    folder: Path, recorded: Mapping[str, Mapping[str, Any]], classes: Sequence[str], mpp: float | None
) -> list[dict[str, Any]]:
    """The folder's regions, each as it was written."""
    infos = read_region_table(folder / TABLE)
    odd = sorted({info["item"] for info in infos} ^ set(recorded))
    if odd:
        raise DataError(f"synthetic: {odd[0]} stands in one of {folder / TABLE} and {RECORD} alone: {_ANEW}")
    bare = next((info for info in infos if info["mask_path"] is None), None)
    if bare is not None:
        raise DataError(f"{bare['where']}: the drawn region {bare['item']} has no mask: {_ANEW}")
    images = scan_images([info["img_path"] for info in infos])
    masks = scan_masks([info["mask_path"] for info in infos])
    lookup, entries = value_lookup(len(classes)), []
    for info, image, mask in zip(infos, images, masks, strict=True):
        about = recorded[info["item"]]
        for file, wanted in ((image, about["sha256"]), (mask, about["mask_sha256"])):
            if file.missing or file.error or file.sha256 != wanted:
                problem = "no such file" if file.missing else file.error or "not the bytes that were drawn"
                raise DataError(f"{info['where']}: synthetic: {file.path}: {problem}: restore it, or {_ANEW}")
        entry = region_entry(info, image, mask, mpp, lookup, classes)
        entries.append({**entry, "region": replace(entry["region"], source=about["source"])})
    return entries


def _refuse_leaking(folder: Path, made: Sequence[Region], real: Sequence[Region], split: Split) -> None:
    """Raises where a drawn region is of somebody who is validated or tested on, shows what is, or is of nobody here.

    Its patient, the region that its label map is from, that one's patient and slide, and its own bytes are looked at,
    whatever the split is grouped by.
    """
    subset_of = {item: name for name, part in split.subsets.items() for item in part.items}
    of_item = {region.item: region for region in real}
    of_patient: dict[str | None, set[str]] = defaultdict(set)
    for region in real:
        of_patient[region.patient].add(subset_of.get(region.item, "no subset"))
    of_bytes = {region.sha256: region for region in real if subset_of.get(region.item) != "train"}
    for region in made:
        where = f"synthetic: {folder}: {region.item}"
        kept_out = sorted(of_patient[region.patient] & set(KEPT_OUT)) if region.patient is not None else []
        if kept_out:
            raise LeakageError(f"{where} is of patient {region.patient!r}, who stands in {kept_out[0]!r}: {_ANEW}")
        source, subset = of_item.get(region.source or ""), subset_of.get(region.source or "")
        if source is None or subset != "train":
            stands = f"stands in {subset!r}" if subset else "stands in no subset"
            raise LeakageError(f"{where} has a label map of {region.source}, which {stands} of this split: {_ANEW}")
        if (source.patient, source.slide) != (region.patient, region.slide):
            raise LeakageError(
                f"{where} is of patient {region.patient!r}, slide {region.slide!r}, but its label map {source.item} of "
                f"{source.patient!r}, {source.slide!r}: a drawn region has those of its label map; {_ANEW}"
            )
        if region.sha256 in of_bytes:
            other = of_bytes[region.sha256]
            subset = subset_of.get(other.item, "no subset")
            raise LeakageError(f"{where} has the bytes of {other.item} in {subset!r}: take it out: {_ANEW}")
        if region.item in of_item:
            raise DataError(f"{where}: a real region has the same name: rename the real one, and {_ANEW}")


def drawn_rows(regions: Sequence[Region]) -> list[Any]:
    """What drawn regions add to a data set's digest: nothing where there are none."""
    rows = sorted([region.item, region.sha256, region.mask_sha256] for region in regions if region.source is not None)
    return [["synthetic", rows]] if rows else []


def count_drawn(
    counts: dict[str, Any],
    regions: Sequence[Region],
    pixels: Sequence[Sequence[int] | None],
    classes: Sequence[str],
    of_generator: Sequence[str] = (),
) -> dict[str, Any]:
    """The counts with n_synthetic; where that is above 0, also of each class and said in `caveats`.

    Args:
        counts: of `count_regions`, with caveats.
        regions, pixels, classes: as of `count_regions`.
        of_generator: what the record says under `CAVEATS`; the counts have it under the same key, and in `caveats`.
    """
    made = [own for region, own in zip(regions, pixels, strict=True) if region.source is not None]
    if not made:
        return counts | {"n_synthetic": 0}
    per_class = {
        name: counts["per_class"][name] | {"n_synthetic": sum(bool(own and own[label]) for own in made)}
        for label, name in enumerate(classes)
    }
    text = f"{len(made)} of {len(regions)} regions are synthetic: a network drew them from label maps"
    more = {"n_synthetic": len(made), "per_class": per_class, "caveats": [*counts["caveats"], text, *of_generator]}
    return counts | more | ({CAVEATS: list(of_generator)} if of_generator else {})
