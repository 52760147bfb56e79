"""Seeded, stratified train/test splits for data that come without one."""

import torch
from torch import Tensor

from supreme.errors import ConfigError, DataError
from supreme.seeding import generator


def check_fraction(test_fraction: float) -> None:
    """Refuse a test share outside (0, 1).

    Raises:
        ConfigError: if ``test_fraction`` is not between 0 and 1.
    """
    if not 0.0 < test_fraction < 1.0:
        raise ConfigError(f"Expected test_fraction between 0 and 1, got {test_fraction}.")


def stratified_split(
    targets: Tensor, classes: tuple[str, ...], test_fraction: float, seed: int
) -> tuple[Tensor, Tensor]:
    """Split samples at random, class by class, so that every class has the same share in both parts.

    A class with n samples gives ``round(n * test_fraction)`` of them to the test part, but at least one and never
    all. The draw of a class depends on the seed and the name of the class only.

    Args:
        targets: int64 (N,), class of every sample.
        classes: class names.
        test_fraction: share of the test part, in (0, 1).
        seed: seeds the draw.

    Returns:
        Ascending int64 indices of the training part and of the test part.

    Raises:
        ConfigError: if the share is outside (0, 1).
        DataError: if a class has fewer than two samples.

    Example:
        >>> train, test = stratified_split(torch.tensor([0, 0, 0, 0, 1, 1]), ("a", "b"), 0.25, seed=0)
        >>> len(train), len(test)
        (4, 2)
    """
    check_fraction(test_fraction)
    held_out = torch.zeros(len(targets), dtype=torch.bool)
    for number, name in enumerate(classes):
        members = torch.nonzero(targets == number).flatten()
        if len(members) < 2:
            raise DataError(
                f"Expected at least 2 images of class '{name}' for a train/test split, got {len(members)}; add images "
                f"or remove the class."
            )
        count = min(max(int(len(members) * test_fraction + 0.5), 1), len(members) - 1)
        order = torch.randperm(len(members), generator=generator("split", seed, name))
        held_out[members[order[:count]]] = True
    return torch.nonzero(~held_out).flatten(), torch.nonzero(held_out).flatten()


def leading_split(targets: Tensor, classes: tuple[str, ...], train_fraction: float) -> tuple[Tensor, Tensor]:
    """Split samples class by class: the first ones of a class are for training, the others for testing.

    Nothing is drawn. Of a class with n samples, ``int(n * train_fraction)`` are for training;
    that is none where there is just one.

    Args:
        targets: int64 (N,), class of every sample.
        classes: class names.
        train_fraction: share of the training part, in (0, 1).

    Returns:
        int64 indices of the training part and of the test part, each class by class and ascending inside a class.

    Example:
        >>> leading_split(torch.tensor([1, 0, 0, 1]), ("a", "b"), 0.5)
        (tensor([1, 0]), tensor([2, 3]))
    """
    parts: tuple[list[Tensor], list[Tensor]] = ([], [])
    for number in range(len(classes)):
        members = torch.nonzero(targets == number).flatten()
        count = int(len(members) * train_fraction)
        parts[0].append(members[:count])
        parts[1].append(members[count:])
    return torch.cat(parts[0]), torch.cat(parts[1])
