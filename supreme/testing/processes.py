"""Run a function in several processes of one group on this machine, as a Trainer with ``devices=N`` would."""

import io
import multiprocessing
import os
import queue
import socket
import time
import traceback
from collections.abc import Callable
from typing import Any

import torch

PRELOADED = ("lightning.pytorch", "torchmetrics", "torchvision", "supreme.api")


def in_processes(count: int, function: Callable[..., Any], *arguments: Any, timeout_s: float = 240.0) -> list[Any]:
    """Call ``function(*arguments)`` in ``count`` processes that see each other as ranks of one group.

    The children find the variables of a launcher in their environment, so a Trainer in the function takes
    ``accelerator="cpu", devices=count, strategy="ddp"`` (or another strategy) and launches nothing itself. They are
    forked from a server that has imported the libraries once, so that every call but the first takes little time.

    Args:
        count: number of processes.
        function: importable function.
        arguments: picklable arguments.
        timeout_s: when to give up, in seconds.

    Returns:
        What the function returned, by rank.

    Raises:
        RuntimeError: if a rank raised or the time is over; all ranks are ended.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    results: Any = context.Queue()
    port = free_port()
    children = [
        context.Process(target=_child, args=(rank, count, port, function, arguments, results), daemon=True)
        for rank in range(count)
    ]
    for child in children:
        child.start()
    try:
        return _collect(results, children, count, timeout_s)
    finally:
        for child in children:
            child.kill()
            child.join()


def _collect(results: Any, children: list[Any], count: int, timeout_s: float) -> list[Any]:
    found: dict[int, Any] = {}
    end = time.monotonic() + timeout_s
    while len(found) < count:
        try:
            rank, good, payload = results.get(timeout=1.0)
        except queue.Empty:
            dead = [child.exitcode for child in children if child.exitcode not in (None, 0)]
            if dead or time.monotonic() > end:
                what = f"a rank ended with exit code {dead[0]}" if dead else f"no answer within {timeout_s:g} s"
                raise RuntimeError(f"Expected an answer of every rank, but {what}.") from None
            continue
        if not good:
            raise RuntimeError(f"Rank {rank} raised:\n{payload}")
        found[rank] = torch.load(io.BytesIO(payload), weights_only=False)
    return [found[rank] for rank in range(count)]


def _child(rank: int, count: int, port: int, function: Callable[..., Any], arguments: Any, results: Any) -> None:
    ranks = {"LOCAL_RANK": rank, "RANK": rank, "NODE_RANK": 0, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
    os.environ.update({name: str(value) for name, value in ranks.items()})
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), OMP_NUM_THREADS="1")
    torch.set_num_threads(1)
    try:
        buffer = io.BytesIO()
        torch.save(function(*arguments), buffer)
        results.put((rank, True, buffer.getvalue()))
    except BaseException:
        results.put((rank, False, traceback.format_exc()))
    finally:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port: int = server.getsockname()[1]
        return port
