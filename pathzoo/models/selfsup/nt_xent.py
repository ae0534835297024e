"""NT-Xent, the contrastive loss of SimCLR, without the matrix of all similarities.

Letters: N pairs in all processes, n in this one, D dimensions. Source: Chen, Kornblith, Norouzi and Hinton, A Simple
Framework for Contrastive Learning of Visual Representations, ICML 2020, equation 1 and algorithm 1.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from mmengine.dist import all_gather, get_rank, get_world_size
from torch.autograd.function import once_differentiable

#: Shorter vectors have no direction: they count as 0, similar to nothing, and get no gradient.
_SHORTEST = 1e-12
#: (similarity - 1) / temperature stays above -80 from here on, and with it float32's exponential above 0.
_SINGLE_PRECISION = 0.025
#: Below, even float64's exponential would be 0.
_LOWEST = 0.003


def nt_xent(
    first: torch.Tensor, second: torch.Tensor, temperature: float = 0.1, chunk: int = 1024, gather: bool = True
) -> torch.Tensor:
    """The normalised temperature-scaled cross-entropy: which of all other vectors is an anchor's other view?

    With s the cosine similarity, an anchor i and its other view p lose -log(exp(s_ip / T) / sum over k != i of
    exp(s_ik / T)); the loss is the mean over the 2N anchors. The similarities are taken in tiles of `chunk` x `chunk`,
    again for the gradient, so that memory grows with N D + chunk², not with N².

    Several processes: an anchor is held against the vectors of all of them. Each returns the loss of all 2N anchors,
    and its gradient is the number of processes times that loss's gradient by its own vectors, so that DDP, which
    averages the processes' gradients, gives what one process with the whole batch would have. For that a process needs
    the others' vectors and their log-sums only: as s is symmetric, what its vectors do to the others' losses stands in
    the tiles that it takes for its own.

    Args:
        first: (n, D), one view; any length, any floating type. Computed in float32 (float64 stays, and is taken below
            temperature 0.025), under autocast too.
        second: (n, D), the other view, row by row of the same pictures.
        temperature: T, 0.003 or more.
        chunk: Side of a tile; memory against speed, the result is the same.
        gather: Take the vectors of all processes; n may differ among them, and all have to call this. False keeps to
            this one's.

    Returns:
        A scalar; 0 with gradient 0 for N = 1, where there is nothing to tell the pair from. NaN where a vector holds
        NaN or infinity, so that a gradient scaler skips the step.

    Raises:
        ValueError: Shapes that differ, nothing in them, a temperature or a chunk out of range.
    """
    vectors = _unit_vectors(first, second, temperature, chunk)
    return _NTXent.apply(vectors, temperature, chunk, gather and get_world_size() > 1)


@torch.no_grad()
def nt_xent_of_pairs(
    first: torch.Tensor, second: torch.Tensor, temperature: float = 0.1, chunk: int = 1024
) -> torch.Tensor:
    """Each pair's share (n,) of the loss among the pairs of this process: the mean of its two anchors; no gradient.

    Arguments and errors as `nt_xent`, whose value (without `gather`) is the mean of these.
    """
    vectors = _unit_vectors(first, second, temperature, chunk)
    with torch.autocast(vectors.device.type, enabled=False):
        log_sums = _log_sums(vectors, vectors, temperature, chunk)
        return log_sums.view(2, -1).mean(0) - _positives(vectors, temperature)


class _NTXent(torch.autograd.Function):
    """The loss of unit vectors (2n, D): n of one view, then n of the other."""

    @staticmethod
    def forward(ctx: Any, vectors: torch.Tensor, temperature: float, chunk: int, gather: bool) -> torch.Tensor:
        with torch.autocast(vectors.device.type, enabled=False):
            # This process's come first in all that is gathered.
            columns = _gathered(vectors) if gather else vectors
            own = _log_sums(vectors, columns, temperature, chunk)
            positives = _positives(vectors, temperature).repeat(2)
            losses = own - positives
            log_sums, losses = _gathered(torch.stack([own, losses], 1)).unbind(1) if gather else (own, losses)
        ctx.save_for_backward(vectors, columns, log_sums)
        ctx.temperature, ctx.chunk, ctx.processes = temperature, chunk, get_world_size() if gather else 1
        return losses.mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        vectors, columns, log_sums = ctx.saved_tensors
        with torch.autocast(vectors.device.type, enabled=False):
            total = _pulls(vectors, columns, log_sums, ctx.temperature, ctx.chunk)
            total -= 2 * vectors.roll(len(vectors) // 2, 0)  # each is the positive of its other view, and the reverse
            scale = ctx.processes / (ctx.temperature * len(columns))
            return total * (grad * scale), None, None, None


class _Tile(NamedTuple):
    """exp((s - 1) / T) of some rows against some columns; `mirrored` where it stands for its transpose as well."""

    rows: slice
    columns: slice
    values: torch.Tensor
    mirrored: bool


def _tiles(vectors: torch.Tensor, columns: torch.Tensor, temperature: float, chunk: int) -> Iterator[_Tile]:
    """All of `vectors` (the first of `columns`) against `columns`, 0 on the diagonal; values last until the next one.

    Among `vectors` themselves only the tiles on and above the diagonal are taken: the rest is their mirror image.
    """
    n, side = len(vectors), min(chunk, len(columns))
    buffer = vectors.new_empty(side * side)
    scaled = vectors / temperature
    for top in range(0, n, chunk):
        starts = [(left, min(left + chunk, n)) for left in range(top, n, chunk)]
        starts += [(left, min(left + chunk, len(columns))) for left in range(n, len(columns), chunk)]
        rows = slice(top, min(top + chunk, n))
        for left, right in starts:
            shape = rows.stop - top, right - left
            values = buffer[: shape[0] * shape[1]].view(shape)
            torch.mm(scaled[rows], columns[left:right].T, out=values)
            values.sub_(1 / temperature).exp_()
            if left == top:
                values.fill_diagonal_(0)  # nothing is its own negative
            yield _Tile(rows, slice(left, right), values, mirrored=top < left < n)


def _log_sums(vectors: torch.Tensor, columns: torch.Tensor, temperature: float, chunk: int) -> torch.Tensor:
    """log of the sum over k != i of exp(s_ik / T), for each of `vectors`: (2n,)."""
    sums = vectors.new_zeros(len(vectors))
    for tile in _tiles(vectors, columns, temperature, chunk):
        sums[tile.rows] += tile.values.sum(1)
        if tile.mirrored:
            sums[tile.columns] += tile.values.sum(0)
    return sums.log() + 1 / temperature


def _pulls(
    vectors: torch.Tensor, columns: torch.Tensor, log_sums: torch.Tensor, temperature: float, chunk: int
) -> torch.Tensor:
    """T times the gradient of all log-sums by each of `vectors`, (2n, D): the sum over k of (p_ik + p_ki) z_k.

    p_ik is the softmax's share of k in anchor i's sum; both shares are the same exponential over two sums.
    """
    inverse = (1 / temperature - log_sums).exp()  # (2N,), 1 over each sum
    total = torch.zeros_like(vectors)
    for tile in _tiles(vectors, columns, temperature, chunk):
        weights = tile.values.mul_(inverse[tile.rows, None] + inverse[None, tile.columns])
        total[tile.rows].addmm_(weights, columns[tile.columns])
        if tile.mirrored:
            total[tile.columns].addmm_(weights.T, vectors[tile.rows])
    return total


def _positives(vectors: torch.Tensor, temperature: float) -> torch.Tensor:
    """s / T of each pair: (n,)."""
    first, second = vectors.chunk(2)
    return (first * second).sum(1) / temperature


def _gathered(rows: torch.Tensor) -> torch.Tensor:
    """The rows of all processes, this one's first; their numbers may differ."""
    numbers = [int(number) for number in all_gather(torch.tensor([len(rows)], device=rows.device))]
    padded = rows.new_zeros(max(numbers), *rows.shape[1:])
    padded[: len(rows)] = rows
    parts = [part[:number] for part, number in zip(all_gather(padded), numbers, strict=True)]
    own = get_rank()
    return torch.cat([rows, *parts[:own], *parts[own + 1 :]])


def _unit_vectors(first: torch.Tensor, second: torch.Tensor, temperature: float, chunk: int) -> torch.Tensor:
    """(2n, D) of length 1, or 0 for what has no direction, in the type that is computed in."""
    if first.ndim != 2 or first.shape != second.shape or not first.numel():
        raise ValueError(
            f"nt_xent: views of shapes {tuple(first.shape)} and {tuple(second.shape)}; give two alike, (N, D), N >= 1"
        )
    if not temperature >= _LOWEST:
        raise ValueError(f"nt_xent: temperature {temperature}; give {_LOWEST} or more, 0.1 to 0.5 is usual")
    if chunk < 1:
        raise ValueError(f"nt_xent: chunk {chunk}; give 1 or more, 1024 is usual")
    double = temperature < _SINGLE_PRECISION or torch.float64 in (first.dtype, second.dtype)
    dtype = torch.float64 if double else torch.float32
    with torch.autocast(first.device.type, enabled=False):
        both = torch.cat([first.to(dtype), second.to(dtype)])
        lengths = torch.linalg.vector_norm(both, dim=1, keepdim=True)
        # `<=` and not its opposite: NaN has to come out as NaN.
        return torch.where(lengths <= _SHORTEST, 0.0, both / lengths.clamp_min(_SHORTEST))
