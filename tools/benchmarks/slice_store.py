"""Slices per second from a store of CT slices against reading NIfTI each time, and how long a store takes to open.

    python tools/benchmarks/slice_store.py [--patients 10 --slices 64 --size 512] [--markdown FILE]

The same drawn abdomens lie in a store, in .nii.gz as KiTS19 has them, and in .nii. Every way gives a slice's label and
what the window of HU centre 0, width 400 shows of it, in a drawn order, by one thread, out of the page cache (no disk
is measured). The ceiling is the same window over slices that are in memory already. KiTS19's files have the slices on
the axis that varies fastest, so that the voxels of one slice lie all over a file. `opened once` keeps every .nii
mapped, which holds two files open for each case; the other ways open a file for each slice.

The large store that is opened has as many slices as the study's, 6,400 of 100 patients; its pixels are sparse files, so
that they take no space.
"""

import argparse
import contextlib
import importlib.util
import json
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import nibabel
import numpy as np
from measuring import Table, in_turns, machine, publish, ratio, spread

from pathzoo.apis.setup import setup
from pathzoo.ct.build import BuildOptions, build_store
from pathzoo.ct.cases import find_kits19
from pathzoo.ct.store import CLASSES, COLUMNS, SliceStore, store_digest
from pathzoo.ct.volume import ReadOptions
from pathzoo.ct.window import window
from pathzoo.datasets.phantom import write_ct
from pathzoo.datasets.splits import Split, SplitItem, Subset
from pathzoo.errors import PathzooError
from pathzoo.fileio import sha256_bytes, sha256_file, write_json, write_text

_CENTRE, _WIDTH = 0.0, 400.0
_OURS = "slice store, SliceSegmentation"
#: Share of patients in each subset of the large store.
_RATIOS = {"train": 0.7, "val": 0.2, "test": 0.1}

#: Slices of a case in the large store.
_PER_CASE = 64

#: number of a slice in the drawn order -> its picture (H, W) float32 in 0..255, its label (H, W)
Reader = Callable[[int], tuple[np.ndarray, np.ndarray]]


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints; returns 0, or 2 for bad input."""
    args = _parser().parse_args(argv)
    setup()
    try:
        with tempfile.TemporaryDirectory(prefix="pathzoo-benchmark-") as scratch, _silent():
            _run(args, Path(scratch))
    except PathzooError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _run(args: argparse.Namespace, folder: Path) -> None:
    where = machine(threads=1)
    store = draw_store(folder, args.size, args.patients, args.slices)
    write_plain(folder / "cases", folder / "plain")
    readers = make_readers(folder, store)
    order = np.random.default_rng(0).permutation(len(store)).tolist()
    refuse_other_pixels(readers, order[: args.nifti_slices])
    values = in_turns({name: _arm(name, read, order, args.nifti_slices) for name, read in readers.items()}, args.rounds)
    large = write_sparse(folder / "large", store.folder, args.large)
    chosen = min(args.nifti_slices, len(store))
    indexed = importlib.util.find_spec("indexed_gzip") is not None  # nibabel takes it where it is there
    note = (
        f"Medians (range) of {args.rounds} rounds in turns, after one to warm up; one thread, files in the page cache; "
        f"rows of NIfTI over {chosen} slices a round. {args.patients} drawn patients; nibabel {nibabel.__version__}"
        f"{' with' if indexed else ', without'} indexed_gzip. {where}."
    )
    tables = [_reading_table(values, _sizes(folder), len(store), args.size), _opening_table(store.folder, large, args)]
    publish(tables, note, args.markdown)


def draw_store(folder: Path, size: int, patients: int, slices: int) -> SliceStore:
    """Draws abdomens to folder/cases, in KiTS19's layout, and brings all their slices into folder/store."""
    print(f"drawing {patients} phantom cases of {slices} slices, {size} px ...", file=sys.stderr)
    write_ct(folder / "cases", patients=patients, size=(size, size), slices=slices)
    cases, _ = find_kits19(folder / "cases", ReadOptions())
    return build_store(cases, folder / "store", BuildOptions("kits19", phantom=True)).store


def write_plain(source: Path, target: Path) -> None:
    """The same case folders with .nii in place of .nii.gz."""
    for path in sorted(source.glob("*/*.nii.gz")):
        out = target / path.parent.name / path.name.removesuffix(".gz")
        out.parent.mkdir(parents=True, exist_ok=True)
        nibabel.save(nibabel.load(path), out)


def make_readers(folder: Path, store: SliceStore) -> dict[str, Reader]:
    """name -> what reads one slice; number n is the same slice for all."""
    from pathzoo.datasets.slices import SliceSegmentation
    from pathzoo.datasets.transforms import HUWindow

    places = [(subset, k) for subset in store.subsets for k in range(len(store.records(subset)))]
    records = [record for subset in store.subsets for record in store.records(subset)]
    planes = {case: nibabel.load(_path(folder / "plain", case, "imaging")).shape[0] for case in _cases(folder)}
    # The store counts from the feet, KiTS19's files from the head.
    found = [(record.case, planes[record.case] - 1 - record.slice) for record in records]
    held = [(np.array(store.image(*place)), np.array(store.label(*place))) for place in places]
    mapped = {case: _both(lambda path: np.asanyarray(nibabel.load(path).dataobj), folder, case) for case in planes}
    step = {"type": HUWindow, "centre": _CENTRE, "width": _WIDTH}
    dataset = SliceSegmentation(data_root=str(store.folder), subset="all", pipeline=[step])

    def sample(number: int) -> tuple[np.ndarray, np.ndarray]:
        found = dataset[number]
        return found["img"][..., 0], found["gt_seg_map"]

    def nifti(read: Callable[[Path, int], np.ndarray], kind: str) -> Reader:
        def reader(number: int) -> tuple[np.ndarray, np.ndarray]:
            case, plane = found[number]
            hu, label = (read(_path(folder / kind, case, name), plane) for name in ("imaging", "segmentation"))
            return _window(hu), label

        return reader

    return {
        "memory (the ceiling)": lambda number: (_window(held[number][0]), np.array(held[number][1])),
        "slice store, SliceStore": lambda n: (_window(store.image(*places[n])), np.array(store.label(*places[n]))),
        _OURS: sample,
        ".nii, opened once": lambda n: _shown(*(volume[found[n][1]] for volume in mapped[found[n][0]])),
        ".nii, dataobj": nifti(_dataobj, "plain"),
        ".nii.gz, dataobj": nifti(_dataobj, "cases"),
        ".nii, get_fdata": nifti(_get_fdata, "plain"),
        ".nii.gz, get_fdata": nifti(_get_fdata, "cases"),
    }


def refuse_other_pixels(readers: dict[str, Reader], numbers: Sequence[int]) -> None:
    """Ends the benchmark where a way gives another picture or label of a slice than the others."""
    for number in numbers:
        wanted = None
        for name, read in readers.items():
            given = read(number)
            wanted = wanted or given
            if not all(np.array_equal(*pair) for pair in zip(given, wanted, strict=True)):
                raise SystemExit(f"{name}: slice {number} has other pixels than in memory: nothing to compare")


def write_sparse(folder: Path, like: Path, n: int) -> Path:
    """A store of n slices whose pixels are all zero and take no space on most file systems, 64 a case.

    Opening it reads as much as of a real one; digests of its slices are made up.
    """
    content = json.loads((like / "store.json").read_text(encoding="utf-8"))
    width, height = content["size"]
    patients = max(len(_RATIOS), round(n / _PER_CASE))
    ends = np.round(np.cumsum([0, *_RATIOS.values()]) * patients).astype(int)
    subsets, splits = {}, {}
    for begin, end, name in zip(ends, ends[1:], _RATIOS, strict=False):
        own = [k for k in range(n) if begin <= k * patients // n < end]
        (folder / name).mkdir(parents=True)
        for file, kind in (("images", "<i2"), ("labels", "|u1")):
            np.lib.format.open_memmap(folder / name / f"{file}.npy", "w+", np.dtype(kind), (len(own), height, width))
        lines = [_line(k, f"case_{k * patients // n:05d}") for k in own]
        table = "\n".join([",".join(COLUMNS), *(",".join(line) for line in lines)]) + "\n"
        write_text(folder / name / "index.csv", table)
        items = [SplitItem(line[0], int(line[7] != "0"), line[-1], line[1]) for line in lines]
        splits[name] = Subset.of(items)
        counts = {"n": len(own), "patients": int(end - begin), "kidney": len(own) // 4, "tumour": 0}
        subsets[name] = counts | {"digest": sha256_file(folder / name / "index.csv")}
    Split("patient_ratio", splits, CLASSES, group_key="patient").save(folder / "splits.json")
    content["subsets"] = subsets
    write_json(folder / "store.json", content | {"digest": store_digest(content)})
    return folder


def _line(number: int, case: str) -> tuple[str, ...]:
    """A line of index.csv; every fourth slice shows kidney."""
    item = f"{case}/{number:06d}"
    kidney = "900" if number % 4 == 0 else "0"
    return (item, case, case, str(number), "0.0", "0.8", "0.8", kidney, "0", "", sha256_bytes(item.encode()))


def _opening_table(small: Path, large: Path, args: argparse.Namespace) -> Table:
    from pathzoo.datasets.slices import SliceSegmentation

    def dataset(path: Path, **options: bool) -> int:
        return len(SliceSegmentation(data_root=str(path), subset="all", **options))

    ways: dict[str, Callable[[Path], object]] = {
        "SliceStore": SliceStore,
        "SliceStore, its index and split read": lambda path: SliceStore(path).split,
        # mmengine collects garbage, of the whole process, when it serialises a list.
        "SliceSegmentation, serialize_data=False": lambda path: dataset(path, serialize_data=False),
        "SliceSegmentation": dataset,
    }
    values = []
    for folder in (small, large):
        arms = {name: lambda way=way, path=folder: 1000 * _seconds(lambda: way(path)) for name, way in ways.items()}
        values.append(in_turns(arms, args.rounds))
    rows = [(name, *(spread(found[name]).show() for found in values)) for name in ways]
    columns = ("opened", *(f"{len(SliceStore(folder)):,} slices, ms" for folder in (small, large)))
    return Table(f"Opening a store of slices of {args.size} px", columns, rows)


def _reading_table(values: dict[str, list[float]], sizes: dict[str, float], n: int, size: int) -> Table:
    rows = []
    for name, found in values.items():
        kind = name.partition(",")[0]
        on_disk = f"{sizes[kind]:.0f}" if kind in sizes else ""
        rows.append((name, spread(found).show(), ratio(values[_OURS], found).show(), on_disk))
    columns = ("read from", "slices/s", "SliceSegmentation / this", "MB on disk")
    return Table(f"{n} slices of {size} px in random order, image and label", columns, rows)


def _arm(name: str, read: Reader, order: Sequence[int], nifti_slices: int) -> Callable[[], float]:
    """What measures a round in slices per second; of NIfTI, which is slow, the first slices of the order alone."""
    numbers = order[:nifti_slices] if name.startswith(".nii") and "once" not in name else order
    return lambda: len(numbers) / _seconds(lambda: [read(number)[0].shape for number in numbers])


def _sizes(folder: Path) -> dict[str, float]:
    """First word of a way's name -> MB of what it reads."""
    files = {
        "slice store": (folder / "store").rglob("*"),
        ".nii": (folder / "plain").rglob("*.nii"),
        ".nii.gz": (folder / "cases").rglob("*.nii.gz"),
    }
    return {name: sum(path.stat().st_size for path in paths if path.is_file()) / 1e6 for name, paths in files.items()}


def _cases(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "plain").iterdir())


def _path(root: Path, case: str, name: str) -> Path:
    return root / case / f"{name}.nii{'.gz' if root.name == 'cases' else ''}"


def _both(read: Callable[[Path], np.ndarray], folder: Path, case: str) -> tuple[np.ndarray, np.ndarray]:
    return read(_path(folder / "plain", case, "imaging")), read(_path(folder / "plain", case, "segmentation"))


def _dataobj(path: Path, plane: int) -> np.ndarray:
    return np.asarray(nibabel.load(path).dataobj[plane])


def _get_fdata(path: Path, plane: int) -> np.ndarray:
    return nibabel.load(path).get_fdata()[plane]


def _window(hu: np.ndarray) -> np.ndarray:
    return window(hu, _CENTRE, _WIDTH)


def _shown(hu: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return _window(hu), np.array(label)


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """A data set tells what is in it whenever it is opened."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--patients", type=int, default=10, help="cases that are drawn")
    parser.add_argument("--slices", type=int, default=64, help="of each case; the study has 6,400 of 100")
    parser.add_argument("--size", type=int, default=512, metavar="PX", help="side of a slice")
    parser.add_argument("--nifti-slices", type=int, default=10, help="that a round reads from NIfTI files")
    parser.add_argument("--large", type=int, default=6400, metavar="N", help="slices of the large store")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables there too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
