"""Many tiles of one size in one file that is opened at once and read in place. Needs no torch.

The file is an ordinary safetensors file (8 bytes of header length, a JSON header, the tensors one after the other):

| tensor | type | what |
|---|---|---|
| `x`, `y` | int64 (N) | left upper corner in level-0 pixels of its slide or picture; -1 where not known |
| `mpp` | float32 (N) | microns per pixel; NaN where not known |
| `label` | int16 (N) | index into the classes; -1 without one |
| `sha256` | uint8 (N, 32) | SHA-256 of each tile's pixels, row by row, RGB |
| `source_sha256` | uint8 (N, 32) | SHA-256 of the picture file that it was taken from; zeros where from a slide |
| `tiles` | uint8 (N, H, W, 3) | RGB |
| `text` | uint8 (n) | UTF-8 JSON: `items`, `patients`, `slides`, a list of N each (text, or null where not known) |

Its metadata are texts: format "pathzoo.packed_tiles", version "2", n, classes (a JSON list), phantom ("true" where
drawn tissue is among the tiles), tensors (a JSON object: SHA-256 of the bytes of every tensor but `tiles`, which has
`sha256`) and digest: SHA-256 over n, the tiles' size, classes, phantom and tensors, so over pixels, names, patients,
labels and places. `pathzoo.datasets.packed_writer` writes it.

Version 1 had a digest of the pixels alone and is not read any more.
"""

import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pathzoo.errors import ConfigError, DataError
from pathzoo.fileio import canonical_json, sha256_bytes

FORMAT, VERSION, SUFFIX = "pathzoo.packed_tiles", "2", ".safetensors"
#: tensor -> (safetensors' name of its type, numpy's, what follows N in its shape); in the order of the file, which
#: leaves every tensor at a multiple of its elements' size.
COLUMNS: dict[str, tuple[str, str, tuple[int, ...]]] = {
    "x": ("I64", "<i8", ()),
    "y": ("I64", "<i8", ()),
    "mpp": ("F32", "<f4", ()),
    "label": ("I16", "<i2", ()),
    "sha256": ("U8", "|u1", (32,)),
    "source_sha256": ("U8", "|u1", (32,)),
}
#: No header of ours comes near; a foreign file's first 8 bytes may ask for any length.
_LONGEST_HEADER = 1 << 24


@dataclass(frozen=True)
class Layout:
    """Where the tensors of a store lie: name -> (first byte after the header, one after the last, shape, type)."""

    tensors: dict[str, tuple[int, int, tuple[int, ...], str]]

    @classmethod
    def of(cls, n: int, height: int, width: int, text: int) -> "Layout":
        """The layout of n tiles of `height` x `width` pixels with `text` bytes of text."""
        shapes = {name: (kind, (n, *rest)) for name, (kind, _, rest) in COLUMNS.items()}
        shapes |= {"tiles": ("U8", (n, height, width, 3)), "text": ("U8", (text,))}
        tensors, start = {}, 0
        for name, (kind, shape) in shapes.items():
            size = math.prod(shape) * {"I64": 8, "F32": 4, "I16": 2, "U8": 1}[kind]
            tensors[name] = (start, start + size, shape, kind)
            start += size
        return cls(tensors)

    def header(self, metadata: dict[str, str]) -> dict[str, Any]:
        """The header as safetensors has it."""
        entries = {
            name: {"dtype": kind, "shape": list(shape), "data_offsets": [start, end]}
            for name, (start, end, shape, kind) in self.tensors.items()
        }
        return {"__metadata__": metadata, **entries}


def store_metadata(
    n: int,
    size: tuple[int, int],
    classes: Sequence[str],
    phantom: bool,
    columns: Mapping[str, np.ndarray],
    text: bytes,
) -> dict[str, str]:
    """The texts in the header of a store, with its digests.

    Args:
        n: tiles.
        size: (width, height) of a tile in pixels.
        classes: names of the labels.
        phantom: whether drawn tissue is among the tiles.
        columns: the tensors of `COLUMNS`.
        text: the tensor `text`.
    """
    tensors = {name: sha256_bytes(columns[name].tobytes()) for name in COLUMNS} | {"text": sha256_bytes(text)}
    return {
        "format": FORMAT,
        "version": VERSION,
        "n": str(n),
        "classes": json.dumps(list(classes), ensure_ascii=False),
        "phantom": "true" if phantom else "false",
        "tensors": json.dumps(tensors),
        "digest": _digest(n, size, classes, phantom, tensors),
    }


def _digest(n: int, size: tuple[int, int], classes: Sequence[str], phantom: bool, tensors: Mapping[str, str]) -> str:
    content = {"n": n, "size": size, "classes": list(classes), "phantom": phantom, "tensors": dict(tensors)}
    return sha256_bytes(canonical_json(content))


class PackedTiles:
    """A store of tiles, open for reading; any number of processes may share it, and a pickled one opens again by path.

    `store[i]` is RGB uint8 (H, W, 3), a read-only view of the file: only what is looked at is read.

    Args:
        path: the file.

    Attributes:
        path: of the file.
        shape: (N, H, W, 3).
        classes: names of the labels, in order; empty where no tile has one.
        digest: SHA-256 over all that is in the store: two with the same tiles in the same order, of which the same is
            known (names, patients, slides, labels, classes, resolutions, places, source files), have the same. Whether
            pixels alone are the same is told by `sha256`.
        phantom: whether drawn tissue is among the tiles.
        labels: int16 (N), -1 without one.
        mpp: float32 (N), microns per pixel, NaN where not known.
        x, y: int64 (N), level-0 pixels, -1 where not known.
        sha256, source_sha256: uint8 (N, 32); see the module.

    Raises:
        ConfigError: no such file.
        DataError: another kind of file, another version of the format, a truncated file, a header or a column (labels,
            places, digests) that is not what was packed. Names are checked at their first use, pixels by `verify`.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)
        header, start = _read_header(self.path)
        metadata = header.pop("__metadata__")
        layout = _checked_layout(self.path, header, metadata, start)
        data = np.memmap(self.path, np.uint8, "r")
        parts = {name: data[start + place[0] : start + place[1]] for name, place in layout.tensors.items()}
        self._tiles = np.asarray(parts["tiles"]).reshape(layout.tensors["tiles"][2])
        self._text = np.asarray(parts["text"])
        columns = {name: _column(parts[name], name, len(self)) for name in COLUMNS}
        self.labels, self.mpp, self.x, self.y = (columns[name] for name in ("label", "mpp", "x", "y"))
        self.sha256, self.source_sha256 = columns["sha256"], columns["source_sha256"]
        self.classes: tuple[str, ...] = tuple(json.loads(metadata["classes"]))
        self.digest: str = metadata["digest"]
        self.phantom: bool = metadata["phantom"] == "true"
        self._digests: dict[str, str] = json.loads(metadata["tensors"])
        n, height, width, _ = self.shape
        if _digest(n, (width, height), self.classes, self.phantom, self._digests) != self.digest:
            raise self._changed("header was")
        for name, values in columns.items():
            if sha256_bytes(values.tobytes()) != self._digests[name]:
                raise self._changed(f"{name} was")

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, H, W, 3)."""
        return self._tiles.shape

    @property
    def items(self) -> tuple[str, ...]:
        """The tiles' ids, each once: the path of the file they come from, with the place where it was cut."""
        return self._names["items"]

    @property
    def patients(self) -> tuple[str | None, ...]:
        """The patient of each tile, None where not known."""
        return self._names["patients"]

    @property
    def slides(self) -> tuple[str | None, ...]:
        """The slide of each tile, None where not known."""
        return self._names["slides"]

    @cached_property
    def _names(self) -> dict[str, tuple]:
        text = self._text.tobytes()
        if sha256_bytes(text) != self._digests["text"]:
            raise self._changed("names (items, patients, slides) were")
        try:
            names = json.loads(text.decode("utf-8"))
            found = {name: tuple(names[name]) for name in ("items", "patients", "slides")}
        except (ValueError, KeyError, TypeError):
            raise DataError(f"{self.path}: its names are damaged: copy it again or pack it anew") from None
        if any(len(values) != len(self) for values in found.values()):
            raise DataError(f"{self.path}: it does not have a name for each of its {len(self)} tiles: pack it anew")
        return found

    def verify(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Reads every tile and holds its pixels against its digest, and the names against theirs.

        The rest was held against its digests when the store was opened.

        Args:
            progress: called with (tiles read, tiles in all).

        Raises:
            DataError: a name, patient or slide was changed; or names the first tile whose pixels are not those it was
                packed with.
        """
        _ = self._names
        for index in range(len(self)):
            if hashlib.sha256(self._tiles[index]).digest() != self.sha256[index].tobytes():
                raise DataError(
                    f"{self.path}: tile {index} ({self.items[index]}) is damaged: its pixels are not those that were "
                    "packed; copy the file again or pack it anew"
                )
            if progress:
                progress(index + 1, len(self))

    def _changed(self, what: str) -> DataError:
        return DataError(f"{self.path}: its {what} changed since it was packed: copy it again or pack it anew")

    def __len__(self) -> int:
        return len(self._tiles)

    def __getitem__(self, index: int) -> np.ndarray:
        return self._tiles[index]

    def __reduce__(self) -> tuple:
        return PackedTiles, (self.path,)

    def __repr__(self) -> str:
        n, height, width, _ = self.shape
        return f"PackedTiles({self.path.name!r}, {n} tiles of {width} x {height} px)"


def is_packed(path: str | os.PathLike) -> bool:
    """Whether a path is to be opened as a store, by its suffix."""
    return Path(path).suffix.lower() == SUFFIX


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    """The header, and where the data begins."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            text = file.read(length) if 2 <= length <= _LONGEST_HEADER else b""
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such store of tiles; tools/dataset_converters/pack_tiles.py makes one") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        header = json.loads(text)
        found = header["__metadata__"]["format"]
    except (ValueError, KeyError, TypeError):
        found = None
    if found != FORMAT:
        raise DataError(
            f"{path}: not a store of packed tiles (its header does not say {FORMAT!r}, or is cut off): "
            "pack_tiles.py makes one"
        )
    return header, 8 + length


def _checked_layout(path: Path, header: dict[str, Any], metadata: dict[str, str], start: int) -> Layout:
    version = metadata.get("version")
    if version != VERSION:
        newer = str(version).isdecimal() and int(version) > int(VERSION)
        remedy = "update pathzoo" if newer else "pack it again with tools/dataset_converters/pack_tiles.py"
        raise DataError(f"{path}: a store of version {version}, this pathzoo reads {VERSION}: {remedy}")
    try:
        n, height, width, _ = header["tiles"]["shape"]
        layout = Layout.of(n, height, width, header["text"]["shape"][0])
        sound = layout.header(metadata) == {"__metadata__": metadata, **header} and metadata["n"] == str(n)
        sound = sound and isinstance(json.loads(metadata["classes"]), list) and {"digest", "phantom"} <= set(metadata)
        sound = sound and set(json.loads(metadata["tensors"])) == {*COLUMNS, "text"}
    except (KeyError, TypeError, ValueError):
        sound = False
    if not sound:
        raise DataError(f"{path}: its header is not that of a store of packed tiles: copy it again or pack it anew")
    expected, size = start + layout.tensors["text"][1], path.stat().st_size
    if size != expected:
        what = "truncated" if size < expected else "damaged"
        raise DataError(
            f"{path}: {what}, {size:,} bytes where its header says {expected:,}: copy it again or pack it anew"
        )
    return layout


def _column(data: np.ndarray, name: str, n: int) -> np.ndarray:
    """A small tensor in memory, read-only."""
    _, kind, rest = COLUMNS[name]
    values = np.frombuffer(data.tobytes(), kind).reshape(n, *rest)
    return values
