"""The header of a safetensors file, read without the library and without trust: sizes are checked before use.

Format: 8 bytes little-endian length of the header, the header as JSON (tensor name -> dtype, shape, data_offsets), then
the tensors' bytes without gaps (github.com/huggingface/safetensors, README, "Format").
"""

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pathzoo.errors import ZooError

#: bytes per element of the data types that a model of ours holds
_SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
FLOAT_TYPES = {"float32": "F32", "float16": "F16"}
_MAX_HEADER = 32 << 20


@dataclass(frozen=True)
class Header:
    """What a safetensors file says it holds: `tensors` maps name to (dtype, shape), `metadata` is free text."""

    tensors: dict[str, tuple[str, tuple[int, ...]]]
    metadata: dict[str, str]

    @property
    def n_elements(self) -> int:
        """Number of floating-point elements, parameters and buffers together."""
        return sum(math.prod(shape) for dtype, shape in self.tensors.values() if "F" in dtype)

    @property
    def float_types(self) -> set[str]:
        """The floating-point types in use, as safetensors spells them."""
        return {dtype for dtype, _ in self.tensors.values() if "F" in dtype}


def read_header(path: str | os.PathLike[str]) -> Header:
    """Reads and checks the header; the file's size must be exactly what the header says.

    Raises:
        ZooError: A pickle (or a zip of pickles, as torch.save writes), a truncated file, or a header that contradicts
            itself or the file.
    """
    path = Path(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        # A length may begin with the same bytes: only what does not go on with the header's brace is taken for these.
        if file.read(1) != b"{" and (start[:1] == b"\x80" or start[:2] == b"PK"):
            kind = "a pickle" if start[:1] == b"\x80" else "a zip archive as torch.save writes it, with a pickle inside"
            raise ZooError(
                f"{path.name}: is {kind}, not safetensors; unpickling runs foreign code, so it is never opened"
            )
        length = int.from_bytes(start, "little")
        if len(start) < 8 or not 2 <= length <= min(_MAX_HEADER, size - 8):
            raise ZooError(f"{path.name}: is no safetensors file, or is truncated (header of {length} bytes in {size})")
        file.seek(len(start))
        raw = file.read(length)
    try:
        header = json.loads(raw.decode("utf-8"), object_pairs_hook=_no_duplicates)
        return _parse(header, size - 8 - length)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ZooError(f"{path.name}: is no safetensors file ({error})") from error


def _parse(header: dict[str, Any], n_bytes: int) -> Header:
    metadata = header.pop("__metadata__", {})
    if not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("metadata other than text")
    tensors, spans = {}, []
    for name, entry in header.items():
        shape = tuple(entry["shape"])
        begin, end = entry["data_offsets"]
        if not all(type(number) is int and number >= 0 for number in (*shape, begin, end)):
            raise ValueError(f"tensor {name!r} has a shape or place that is no whole number")
        if end - begin != _SIZES[entry["dtype"]] * math.prod(shape):
            raise ValueError(f"tensor {name!r} of shape {list(shape)} does not fill its {end - begin} bytes")
        tensors[name] = (entry["dtype"], shape)
        spans.append((begin, end))
    position = 0
    for begin, end in sorted(spans):
        if begin != position:
            raise ValueError(f"tensors overlap or leave a gap at byte {position}")
        position = end
    if position != n_bytes:
        raise ValueError(f"the header speaks of {position} bytes of tensors, the file has {n_bytes}: truncated?")
    return Header(tensors, dict(metadata))


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("one tensor name stands twice")
    return result
