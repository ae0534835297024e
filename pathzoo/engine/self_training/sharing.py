"""Work shared among the processes of a run, and errors that reach all of them. With one process: plain calls."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from mmengine import dist

from pathzoo.errors import PathzooError

T = TypeVar("T")
Item = TypeVar("Item")


class _Failure(NamedTuple):
    """What a process could not do. The exception itself may not travel."""

    kind: type[PathzooError] | None
    text: str

    def raise_elsewhere(self) -> None:
        raise (self.kind or RuntimeError)(self.text)


def on_main(work: Callable[[], T]) -> T:
    """The result of `work`, done by the main process alone; the others wait for it and get a copy.

    Raises:
        What `work` raises, in every process (as RuntimeError in the others where it is no error of pathzoo).
    """
    error, box = None, [None]
    if dist.is_main_process():
        result, error = _attempt(work)
        box = [result if error is None else _failure(error)]
    dist.broadcast_object_list(box, src=0)
    if error is not None:
        raise error
    return _unless_failed(box[0])


def share_out(items: Sequence[Item], work: Callable[[Item], T]) -> list[T]:
    """Does `work` for every item, process r of R for every R-th from the r-th on; all get all results, in order.

    No process goes on before all are done.

    Raises:
        What `work` raises, in every process, after the others have done their share.
    """
    rank, world_size = dist.get_rank(), dist.get_world_size()
    result, error = _attempt(lambda: [work(item) for item in items[rank::world_size]])
    gathered = dist.all_gather_object(result if error is None else _failure(error))
    if error is not None:
        raise error
    parts = [_unless_failed(part) for part in gathered]
    return [parts[number % world_size][number // world_size] for number in range(len(items))]


def _attempt(work: Callable[[], Any]) -> tuple[Any, Exception | None]:
    try:
        return work(), None
    except Exception as error:
        return None, error


def _failure(error: Exception) -> _Failure:
    if isinstance(error, PathzooError):
        return _Failure(type(error), str(error))
    return _Failure(None, f"another process failed: {type(error).__name__}: {error}")


def _unless_failed(value: Any) -> Any:
    if isinstance(value, _Failure):
        value.raise_elsewhere()
    return value
