"""A rewind by name, done alone or as one of several ranks."""

import traceback

import torch
from group_work import small_tasks, strategy_of
from torch.nn import functional
from torch.utils.data import TensorDataset

from supreme.distributed import full_state_dict, hushed, quiet_trainer
from supreme.methods import SCRUB

TRAINING = {"epochs": 5, "max_steps": 3, "milestones": (4,), "smoothing": 0.3, "weight_decay": 1e-3}
# Kind -> optimiser, its rate and the normalisation (see FITS).
KINDS = {"error": ("sgd", 0.03, "batch"), "set": ("adam", 0.005, "group")}


def learnt(norm, dtype):
    """A network that has learnt D, so that its error on D_f changes while it unlearns; and samples it has not seen."""
    tasks = small_tasks()
    images, labels = tasks.tiny_images(105)
    network = tasks.tiny_network(norm).to(dtype)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    for _ in range(30):
        optimizer.zero_grad()
        functional.cross_entropy(network(images[:45].to(dtype)), labels[:45]).backward()
        optimizer.step()
    return network, TensorDataset(images[45:].to(dtype), labels[45:])


def rewound(kind, devices=1, strategy="auto", dtype=torch.float64):
    """State of M_u, the chosen epoch, the errors and the reference."""
    optimizer, lr, norm = KINDS[kind]
    network, unseen = learnt(norm, dtype)
    reference = {"set": {"validation": unseen}, "error": {"reference_error": 0.5}}[kind]
    data = small_tasks().tiny_scenario(dtype=dtype, batch_size=10, shuffle=False)  # D_f has 11: one rank has none
    method = SCRUB(network, optimizer=optimizer, lr=lr, seed=3, **TRAINING, **reference)
    with hushed():
        quiet_trainer("cpu", devices, strategy_of(strategy), max_epochs=1).fit(method, datamodule=data)
        state = full_state_dict(method.model)
    return state, (method.rewind.epoch, method.rewind.errors, method.rewind.reference)


def in_turn(jobs, devices):
    """Results of jobs (kind, strategy, dtype) one after another; a failure is its traceback."""
    return [_result(kind, devices, *settings) for kind, *settings in jobs]


def _result(*arguments):
    try:
        return rewound(*arguments)
    except Exception:
        return traceback.format_exc()
