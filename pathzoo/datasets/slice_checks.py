"""Which slices may be used together: what `SliceSegmentation` refuses of its stores. Needs no torch."""

from dataclasses import replace

from pathzoo.ct.store import SliceRecord, SliceStore
from pathzoo.ct.window import within
from pathzoo.datasets.leakage import KEPT_OUT, check_leakage
from pathzoo.datasets.split_schemes import SplitItem
from pathzoo.datasets.splits import Split
from pathzoo.errors import ConfigError, DataError, LeakageError

#: Key of a synthetic store's record (`SliceStore.synthetic`): digest of the store that its label maps are from.
PARENT_STORE = "parent_store"
_GIVE_REAL = "give the store of real slices as data_root, and this one as synthetic=... of the training set"


def split_item(record: SliceRecord) -> SplitItem:
    """A slice as splits see it: dealt by tumour before kidney before background, which every slice shows."""
    shown = (0, *(label for label, pixels in ((1, record.kidney), (2, record.tumour)) if pixels))
    return SplitItem(record.item, max(shown), record.sha256, record.patient, shown, record.case)


def store_split(store: SliceStore) -> Split:
    """The split of a store of real slices, once no patient and no slice stands on two sides of it.

    Raises:
        LeakageError: a patient or identical bytes on two sides.
        DataError: splits.json is missing or is not of these slices.
    """
    split = store.split
    if split is None:
        raise DataError(f"{store.folder / 'splits.json'}: missing: copy the store again or build it anew")
    items = [split_item(record) for subset in store.subsets for record in store.records(subset)]
    try:
        # Whatever the split is grouped by: slices beside each other are all but the same picture.
        check_leakage(replace(split, group_key="patient"), items)
    except LeakageError as error:
        raise LeakageError(f"{store.folder}: {error}") from None
    return split


def refuse_as_data(store: SliceStore, subset: str) -> None:
    """Raises where a store of synthetic slices is given in the place of real ones.

    Raises:
        LeakageError: to validate or test on.
        ConfigError: otherwise; it has no split that tells whom it was made from.
    """
    if store.synthetic is None:
        return
    if subset in KEPT_OUT:
        raise LeakageError(
            f"{store.folder}: holds synthetic slices, and nothing is judged on those (subset={subset!r}): {_GIVE_REAL}"
        )
    raise ConfigError(f"{store.folder}: holds synthetic slices and no split of their own: {_GIVE_REAL}")


def refuse_misfit(store: SliceStore, made: SliceStore, windowed: bool) -> None:
    """Raises where synthetic slices are of another kind than the real ones.

    Args:
        store: of real slices.
        made: of synthetic ones.
        windowed: whether all slices pass a window: its own check then tells what of the HU may be cut off.

    Raises:
        ConfigError: `made` holds real slices.
        DataError: size, classes, known range, or the store that they were made from.
    """
    if made.synthetic is None:
        raise ConfigError(f"synthetic: {made.folder} holds real slices ({made.source}): {_real_remedy(made)}")
    for what, real, other in (
        ("slices of {} px", _by(store.size), _by(made.size)),
        ("the classes {}", ", ".join(store.classes), ", ".join(made.classes)),
    ):
        if real != other:
            raise DataError(
                f"synthetic: {made.folder} has {what.format(other)}, {store.folder} {what.format(real)}: synthesize "
                "them anew from this store"
            )
    shown = windowed and made.known_range is not None and within(made.known_range, store.known_range)
    if made.known_range != store.known_range and not shown:
        raise DataError(
            f"synthetic: HU are known {_range(made.known_range)} in {made.folder}, {_range(store.known_range)} in "
            f"{store.folder}: synthesize them anew from this store, or show both through one HUWindow that fits"
        )
    parent = made.synthetic.get(PARENT_STORE)
    if parent is not None and parent != store.digest:
        raise DataError(
            f"synthetic: {made.folder} was made from another store (digest {str(parent)[:12]}) than {store.folder} "
            f"({store.digest[:12]}), where the same names may be other patients: synthesize anew from this store"
        )


def refuse_leaking(store: SliceStore, made: SliceStore) -> None:
    """Raises where a synthetic slice is of somebody who is validated or tested on, or shows what is.

    Its patient, the patient of the slice that its label map is from, and its own bytes are looked at.

    Raises:
        LeakageError: names the synthetic item, and the patient or the real item.
    """
    extra = sorted(set(made.subsets) - {"train"})
    if extra:
        raise LeakageError(
            f"synthetic: {made.folder} has the subset {extra[0]!r}: synthetic slices are for training alone; "
            "synthesize from the training subset"
        )
    real = [(name, record) for name in store.subsets for record in store.records(name)]
    of_patient = {record.patient: name for name, record in real if record.patient is not None}
    of_item = {record.item: (name, record) for name, record in real}
    of_bytes = {record.sha256: (name, record.item) for name, record in real if name != "train"}
    for record in made.records("train"):
        where = f"synthetic: {made.folder}: {record.item}"
        _train_alone(of_patient.get(record.patient or ""), f"{where} is of patient {record.patient!r}", store)
        if record.source is not None:
            name, source = of_item.get(record.source, (None, None))
            _train_alone(name, f"{where} has the label map of {record.source}", store)
            if source is not None and source.patient != record.patient:
                raise LeakageError(
                    f"{where} is of patient {record.patient!r}, but its label map {record.source} of "
                    f"{source.patient!r}: a synthetic slice has the patient of its label map; synthesize anew"
                )
        if record.sha256 in of_bytes:
            name, item = of_bytes[record.sha256]
            raise LeakageError(f"{where} has the bytes of {item} in {name!r}: take it out, or synthesize anew")


def _train_alone(subset: str | None, what: str, store: SliceStore) -> None:
    """Raises unless `subset`, where the patient or item was found in `store`, is train."""
    if subset == "train":
        return
    stands = f"stands in {subset!r}" if subset else "stands in no subset"
    raise LeakageError(
        f"{what}, which {stands} of {store.folder}: synthetic slices may come from its training patients alone; "
        "synthesize anew from its training subset"
    )


def _real_remedy(made: SliceStore) -> str:
    return f"give a folder that tools/synthesize.py wrote, or data_root={str(made.folder)!r}"


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


def _range(known: tuple[float, float] | None) -> str:
    return "whole" if known is None else f"from {known[0]:g} to {known[1]:g} alone"
