"""Exact percentiles of more values than can be sorted, also where they are spread over processes."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from supreme.errors import DataError

BINS = 2**16
SIZES = {torch.float32: torch.int32, torch.float64: torch.int64}


def adaptive_rank(share: float) -> float:
    """The percentile of adaptive SSD: 100 - ln(1 + 100 share).

    Args:
        share: abs(D_f) / abs(D), in [0, 1].

    Returns:
        In [95.38, 100] (Schoepf, Foster, Brintrup 2024, arXiv:2402.10098).

    Example:
        >>> round(adaptive_rank(0.1), 4)
        97.6021
    """
    return 100.0 - math.log1p(100.0 * share)


def percentile(parts: Sequence[Tensor], q: float, total: Callable[[Tensor], Tensor] = lambda counts: counts) -> float:
    """The q-th percentile of values that are not negative, linear between neighbours in rank (as NumPy's default).

    Nothing is sorted or gathered: the bits of such numbers are in the order of the numbers, so histograms of 16 bits
    at a time lead to the two values on either side, and only histograms are summed over processes. The result is
    exact for any number of values.

    Args:
        parts: this process' values, float, any shapes, all >= 0 and finite; in one precision over all processes.
        q: in [0, 100].
        total: sums a tensor of counts over processes, in place or not; every process has to call with as many parts
            of whatever size. Without it the values of this process are all.

    Returns:
        The percentile; the same on every process.

    Raises:
        DataError: if there are no values at all.

    Example:
        >>> percentile([torch.tensor([4.0, 1.0]), torch.tensor([[2.0]])], 75)
        3.0
    """
    wide = torch.float64 if any(part.dtype == torch.float64 for part in parts) else torch.float32
    bits = [part.detach().flatten().to(wide).abs().view(SIZES[wide]) for part in parts]
    count = int(total(torch.tensor([sum(len(part) for part in bits)], device=bits[0].device))) if bits else 0
    if not count:
        raise DataError("Expected values to take a percentile of, got none.")
    place = (count - 1) * (q / 100)
    below = math.floor(place)
    lower = _ranked(bits, below, total)
    share = place - below
    if share == 0:
        return lower
    upper = _ranked(bits, below + 1, total)
    step = upper - lower
    return lower + step * share if share < 0.5 else upper - step * (1 - share)


def _ranked(bits: list[Tensor], rank: int, total: Callable[[Tensor], Tensor]) -> float:
    """The value with ``rank`` smaller or equal ones before it."""
    kind = bits[0].dtype
    prefix = 0
    for shift in reversed(range(0, torch.iinfo(kind).bits, 16)):
        counts = torch.zeros(BINS, dtype=torch.int64, device=bits[0].device)
        for part in bits:
            rest = part >> shift
            rest = rest[rest >> 16 == prefix] if shift + 16 < torch.iinfo(kind).bits else rest
            counts += torch.bincount(rest & (BINS - 1), minlength=BINS)
        up_to = total(counts).cumsum(0)
        digit = int((up_to <= rank).sum())
        rank -= int(up_to[digit - 1]) if digit else 0
        prefix = prefix << 16 | digit
    return torch.tensor([prefix], dtype=kind).view({size: real for real, size in SIZES.items()}[kind]).item()
