"""Several gloo processes for a test, without each of them importing torch and its hosts for ten seconds.

They are forked from a server, one of each testing process, that has `warm_imports` behind it and has done nothing else.
"""

import contextlib
import multiprocessing
import os
import socket
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["warm_imports"])


def run(
    code: str,
    *arguments: object,
    count: int = 2,
    cwd: Path | None = None,
    paths: Sequence[Path] = (),
    timeout: float = 240,
) -> list[str]:
    """Runs a script in `count` processes of one group at once; each one's standard output.

    Args:
        code: the script; it has `arguments` as text in sys.argv[1:], and the variables that torchrun sets. It begins
            the group itself.
        count: of processes.
        cwd: their working folder.
        paths: folders that they import from too.
        timeout: seconds for each.

    Raises:
        AssertionError: one did not end with 0; it ends with what that one wrote.
    """
    _begin()
    with tempfile.TemporaryDirectory() as folder, _ended() as processes:
        port = _free_port()
        for rank in range(count):
            place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
            place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "CUDA_VISIBLE_DEVICES": ""}
            given = [*map(str, arguments)], {key: str(value) for key, value in place.items()}
            where = str(cwd or Path.cwd()), [*map(str, paths)], f"{folder}/{rank}"
            process = _SERVER.Process(target=_run, args=(code, *given, *where))
            process.start()
            processes.append(process)
        for rank, process in enumerate(processes):
            process.join(timeout)
            wrote = [Path(f"{folder}/{rank}.{name}").read_text() for name in ("out", "err")]
            assert process.exitcode == 0, f"process {rank}: {process.exitcode}\n{''.join(wrote)[-4000:]}"
        return [Path(f"{folder}/{rank}.out").read_text() for rank in range(count)]


def spawn(function: Any, arguments: tuple, count: int = 2) -> None:
    """torch.multiprocessing.spawn by the same server: calls function(rank, *arguments) in each process."""
    import torch.multiprocessing

    _begin()
    torch.multiprocessing.start_processes(function, arguments, count, start_method="forkserver")


def _begin() -> None:
    """Starts the server, if it is not there: it looks for `warm_imports` on PYTHONPATH alone."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *([before] if before else [])])
    try:
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def _run(code: str, arguments: list[str], place: dict[str, str], cwd: str, paths: list[str], out: str) -> None:
    import torch

    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{out}.{name}", os.O_WRONLY | os.O_CREAT), number)
    torch.set_num_threads(1)
    os.environ.update(place)
    os.chdir(cwd)
    sys.path[:0] = paths
    sys.argv = ["-c", *arguments]
    status: Any = 0
    try:
        exec(compile(code, "<script>", "exec"), {"__name__": "__main__"})
    except SystemExit as ended:
        status = ended.code
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status if isinstance(status, int) else 1)


@contextlib.contextmanager
def _ended() -> Iterator[list[Any]]:
    processes: list[Any] = []
    try:
        yield processes
    finally:
        for process in processes:
            if process.is_alive():
                process.kill()
            process.join()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
