"""Unlearning in a precision under a strategy, alone or as one of several ranks."""

import traceback

import torch

from supreme.distributed import full_state_dict, hushed, quiet_trainer
from supreme.methods import SSD, FineTune


def unlearned(method, precision, strategy="auto", devices=1):
    """State of M_u, in float32."""
    from group_work import small_tasks, strategy_of  # on the path only while these tests run

    tasks = small_tasks()
    made = {
        "SSD": lambda network: SSD(network, selection_weight=1.2),
        "FineTune": lambda network: FineTune(network, epochs=1, lr=0.05),
    }[method](tasks.tiny_network("group"))
    data = tasks.tiny_scenario(batch_size=11, shuffle=False)
    with hushed():
        trainer = quiet_trainer("cpu", devices, strategy_of(strategy), precision, max_epochs=1)
        trainer.fit(made, datamodule=data)
        return {name: value.float() for name, value in full_state_dict(made.model).items()}


def in_turn(jobs):
    """Results of jobs (method, precision, strategy) on two ranks; a failure is its traceback."""
    return [_result(job) for job in jobs]


def _result(job):
    torch.manual_seed(0)
    try:
        return unlearned(*job, devices=2)
    except Exception:
        return traceback.format_exc()
