"""What ranks do in the tests: sum, raise, die, wait."""

import os
import signal
import sys
import time

import torch
import torch.distributed as dist

from supreme.errors import UnknownNameError


def total(value):
    """The sum over ranks, and the threads that each rank may use."""
    dist.init_process_group("gloo")
    number = torch.tensor([float(value + dist.get_rank())])
    dist.all_reduce(number)
    print("rank", dist.get_rank(), "was here")
    return number, torch.get_num_threads(), os.environ["OMP_NUM_THREADS"]


def end(how):
    """Rank 1 ends in some way while rank 0 waits for it."""
    dist.init_process_group("gloo")
    number = torch.zeros(1)
    dist.all_reduce(number)
    if dist.get_rank() == 1:
        if how == "raise":
            raise UnknownNameError("method", "LFSDD", ["LFSSD"])
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "exit":
            sys.exit(3)
        if how == "leave":
            os._exit(7)
    dist.all_reduce(number)


def sleep():
    """Rank 1 raises, and rank 0 never looks at it."""
    if os.environ["RANK"] == "1":
        raise KeyError("first")
    time.sleep(300)


class Stubborn(Exception):
    """An exception that cannot be sent as it is."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")
        self.one = lambda: one

    def __str__(self):
        return f"stubborn {self.one()}"


def stubborn():
    raise Stubborn(1, 2)


def sleep_alone():
    """Wait to be ended."""
    dist.init_process_group("gloo")
    time.sleep(300)
