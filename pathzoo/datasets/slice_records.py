"""Slices as a data set lists and counts them. Needs no torch."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pathzoo.ct.store import SliceStore


def list_slices(store: SliceStore, name: str, subset: str, only_labelled: bool) -> Iterator[dict[str, Any]]:
    """What is known of each slice of a subset but its pixels, as `SliceSegmentation` hands it out.

    Args:
        store: read from.
        name: of the store, as samples carry it.
        subset: of the store.
        only_labelled: leave out slices that show neither kidney nor tumour.

    Yields:
        A dict; `label_pixels` are those of each class. A store counts its second and third class; the first has the
        rest of a slice.
    """
    width, height = store.size
    n_classes, made = len(store.classes), store.synthetic is not None
    for index, record in enumerate(store.records(subset)):
        labelled = (record.kidney, record.tumour)
        if only_labelled and not any(labelled):
            continue
        yield {
            "img_path": f"{name}/{subset}#{index}",
            "seg_map_path": None,
            "seg_fields": ["gt_seg_map"],
            "item": record.item,
            "patient": record.patient,
            "slide": record.case,
            "case": record.case,
            "store": name,
            "subset": subset,
            "slice_index": index,
            "hu_known_range": store.known_range,
            "spacing": record.spacing,
            "synthetic": made,
            "label_pixels": (width * height - sum(labelled), *labelled, *(0,) * n_classes)[:n_classes],
            "sha256": record.sha256,
            "mpp": None,
            "patch_x": 0,
            "patch_y": 0,
            "img_shape": (height, width),
            "ori_shape": (height, width),
            "reduce_zero_label": False,
            "loss_weight": 1.0,
            "unlabelled": False,
        }


def count_slices(infos: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> dict[str, Any]:
    """Counts for tables: n_images (slices), n_synthetic of them, n_patients (known ones), n_cases,
    n_unknown_patient_images, per_class (class -> the n_images, n_synthetic, n_patients that show it, n_pixels).

    Args:
        infos: of `list_slices`.
        classes: names.
    """
    per_class = {}
    for label, name in enumerate(classes):
        own = [info for info in infos if info["label_pixels"][label]]
        per_class[name] = _counts(own) | {"n_pixels": sum(info["label_pixels"][label] for info in own)}
    return {
        **_counts(infos),
        "n_cases": len({info["case"] for info in infos}),
        "n_unknown_patient_images": sum(info["patient"] is None for info in infos),
        "per_class": per_class,
    }


def _counts(infos: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    return {
        "n_images": len(infos),
        "n_synthetic": sum(info["synthetic"] for info in infos),
        "n_patients": len({info["patient"] for info in infos} - {None}),
    }
