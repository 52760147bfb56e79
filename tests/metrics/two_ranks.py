"""What each of two processes does in test_distributed.py; started once for all checks."""

import json
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from supreme.errors import DataError
from supreme.metrics.accuracy import Accuracy
from supreme.metrics.layerwise_distance import LayerwiseDistance
from supreme.metrics.mia import MIA
from supreme.metrics.suite import Suite

WORLD = 2
ROWS = 101


def columns():
    """The same rows on every rank."""
    generator = torch.Generator().manual_seed(5)
    names = ("unlearned", "retrained", "original", "incompetent")
    made = {name: 2 * torch.randn(ROWS, 4, generator=generator) for name in names}
    made["target"] = torch.randint(4, (ROWS,), generator=generator)
    made["part"] = torch.randint(4, (ROWS,), generator=generator)
    made["index"] = torch.arange(ROWS)
    return made


def networks():
    """The same two networks on every rank."""
    torch.manual_seed(6)
    return {name: nn.Sequential(nn.Linear(7, 5), nn.Linear(5, 3)) for name in ("unlearned_model", "retrained_model")}


SPLITS = {
    "interleaved": (list(range(0, ROWS, 2)), list(range(1, ROWS, 2))),
    "uneven": (list(range(83)), list(range(83, ROWS))),
    "second_rank_empty": (list(range(ROWS)), []),
    "first_rank_empty": ([], list(range(ROWS))),
    "one_row": (list(range(1, ROWS)), [0]),
}


def feed(suite, rows, batch_size=9):
    """Update with some rows; a rank without rows never updates."""
    data = columns()
    for start in range(0, len(rows), batch_size):
        chosen = torch.tensor(rows[start : start + batch_size])
        suite.update({name: column[chosen] for name, column in data.items()})


def all_metrics(rank):
    """Values of the whole suite by split."""
    results = {}
    for name, split in SPLITS.items():
        suite = Suite(seed=3)
        feed(suite, split[rank])
        suite.update_models(networks())
        results[name] = suite.compute()
    return results


def continued(rank):
    """compute must not swallow the local rows: half, compute, other half, compute."""
    suite = Suite(seed=3)
    mine = SPLITS["uneven"][rank]
    feed(suite, mine[: len(mine) // 2])
    suite.compute()
    feed(suite, mine[len(mine) // 2 :])
    suite.update_models(networks())
    return suite.compute()


def padded(rank):
    """A sampler that repeats samples to make the shares equal."""
    suite = Suite([MIA(seed=3)])
    feed(suite, [*SPLITS["uneven"][rank], *range(20)])
    return suite.compute()


def models_on_one_rank(rank):
    """Whole parameters count once, also if one rank alone compares them."""
    metric = LayerwiseDistance()
    if rank == 1:
        metric.update(*networks().values())
    else:
        metric._update_count = 1
    return {"layerwise_distance": metric.compute().item()}


def sharded_models(rank):
    """Parameters of which each rank holds a piece (7 and 5 rows do not divide by 2)."""
    mesh = init_device_mesh("cpu", (WORLD,))
    models = networks()
    for model in models.values():
        for layer in model:
            layer.weight = nn.Parameter(distribute_tensor(layer.weight.detach(), mesh, [Shard(0)]))
    metric = LayerwiseDistance()
    metric.update(*models.values())
    return {"layerwise_distance": metric.compute().item()}


def errors(rank):
    """Both ranks have to raise, also if one of them alone has the cause."""
    texts = {}
    nothing = Accuracy()
    nothing.update(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long))
    diverged = Accuracy()
    logits = torch.zeros(2, 3)
    logits[0, 0] = torch.nan if rank == 1 else 0.0
    diverged.update(logits, torch.tensor([0, 1]))
    no_rows = MIA()
    no_rows.update(torch.zeros(0, 3), torch.zeros(0), torch.zeros(0))
    for name, metric in {"nothing": nothing, "diverged": diverged, "no_rows": no_rows}.items():
        with pytest.raises(DataError) as caught:
            metric.compute()
        texts[name] = str(caught.value)
    return texts


def work(rank, folder):
    """All checks of one rank; results go to a file."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=WORLD)
    checks = (all_metrics, continued, padded, models_on_one_rank, sharded_models, errors)
    results = {check.__name__: check(rank) for check in checks}
    Path(folder, f"rank{rank}.json").write_text(json.dumps(results))
    dist.destroy_process_group()
