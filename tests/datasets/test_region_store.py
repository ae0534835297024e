"""Decoded regions are made once, shared by forked workers, and the same in memory and in files."""

import copy
import multiprocessing
import pickle

import numpy as np
import pytest

from pathzoo.datasets import region_store
from pathzoo.datasets.region_store import MemmapStore, MemoryStore, make_store
from pathzoo.errors import DataError

SHAPES = [(5, 7, 3), (4, 4), (300, 200)]


def made(index):
    return np.random.default_rng(index).integers(0, 256, SHAPES[index], np.uint8)


def refuse():
    raise AssertionError("made twice")


@pytest.mark.parametrize("cache", ["memory", "memmap"])
def test_arrays_are_made_once_and_read_only(cache):
    store = make_store(cache, SHAPES, ["a", "b", "c"])
    for index in (2, 0, 1):
        assert np.array_equal(store.get(index, lambda index=index: made(index)), made(index))
    for index in range(3):
        array = store.get(index, refuse)
        assert np.array_equal(array, made(index)) and type(array) is np.ndarray
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    assert copy.deepcopy(store).get(0, refuse) is not None


@pytest.mark.parametrize("cache", ["memory", "memmap"])
def test_what_a_forked_worker_decodes_the_others_have(cache):
    store = make_store(cache, SHAPES, ["a", "b", "c"])
    context = multiprocessing.get_context("fork")
    for index in range(3):
        worker = context.Process(target=store.get, args=(index, lambda index=index: made(index)))
        worker.start()
        worker.join()
        assert worker.exitcode == 0
        assert np.array_equal(store.get(index, refuse), made(index))


def test_a_pickled_store_starts_empty_in_memory_and_full_on_disk():
    memory = pickle.loads(pickle.dumps(MemoryStore(SHAPES)))
    assert np.array_equal(memory.get(1, lambda: made(1)), made(1))
    files = MemmapStore(SHAPES, ["a", "b", "c"])
    files.get(1, lambda: made(1))
    assert np.array_equal(pickle.loads(pickle.dumps(files)).get(1, refuse), made(1))


def test_a_failed_decoding_leaves_nothing_behind():
    for store in (make_store(cache, SHAPES, ["x", "y", "z"]) for cache in ("memory", "memmap")):
        with pytest.raises(AssertionError):
            store.get(1, refuse)
        assert np.array_equal(store.get(1, lambda: made(1)), made(1))


def test_a_truncated_or_foreign_file_is_made_anew():
    MemmapStore(SHAPES, ["a", "b", "c"]).get(2, lambda: made(2))
    store = MemmapStore(SHAPES, ["a", "b", "c"])
    path = store.folder / "c.npy"
    path.write_bytes(path.read_bytes()[:-100])
    assert np.array_equal(store.get(2, lambda: made(2)), made(2))
    np.save(path, np.zeros((3, 3), np.uint8))
    assert np.array_equal(MemmapStore(SHAPES, ["a", "b", "c"]).get(2, lambda: made(2)), made(2))


def test_few_maps_stay_open(monkeypatch):
    monkeypatch.setattr(region_store, "_OPEN_MAPS", 2)
    store = MemmapStore([(3,)] * 9, [str(n) for n in range(9)])
    for index in [*range(9), *range(9)]:
        assert store.get(index, lambda index=index: np.full(3, index, np.uint8)).tolist() == [index] * 3
        assert len(store._open) <= 2


def test_no_room_says_what_to_do(tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"GiB of decoded regions do not fit .*cache=\"memmap\""):
        MemoryStore([(2**62,)])
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PATHZOO_CACHE", str(tmp_path / "file"))  # a file where a folder should be
    with pytest.raises(DataError, match=r"cannot be written .*PATHZOO_CACHE elsewhere, or set cache=\"memory\""):
        MemmapStore(SHAPES, ["a", "b", "c"]).get(0, lambda: made(0))
