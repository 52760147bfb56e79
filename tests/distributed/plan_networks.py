"""Networks of the plans that several processes compute: a small one, and one that fails on a rank."""

import os
import signal

import torch
from torch import nn

BUILT = []  # the device of every network that was built in this process


def Small(num_classes):
    """Two convolutions with BatchNorm."""
    BUILT.append(torch.empty(0).device.type)
    return nn.Sequential(
        *(nn.Conv2d(3, 5, 3, padding=1, stride=2, bias=False), nn.BatchNorm2d(5), nn.ReLU()),
        *(nn.Conv2d(5, 7, 3, padding=1, stride=2, bias=False), nn.BatchNorm2d(7), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(7, num_classes)),
    )


class Failing(nn.Module):
    """Raises, or kills its process, in the third training batch on one rank."""

    def __init__(self, num_classes, rank=1, how="raise"):
        super().__init__()
        self.network, self.rank, self.how, self.batches = Small(num_classes), rank, how, 0

    def forward(self, images):
        self.batches += self.training
        if self.batches == 3 and os.environ["LOCAL_RANK"] == str(self.rank):
            if self.how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise ArithmeticError("this rank has had enough")
        return self.network(images)
