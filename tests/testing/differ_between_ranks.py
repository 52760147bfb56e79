"""Components that are right in one process and wrong in several."""

import torch
from torch.nn import functional

from supreme.batch import Phase
from supreme.methods.base import UnlearningMethod
from supreme.metrics.base import EvaluationMetric


class LocalMean(UnlearningMethod):
    """Averages over the rows of a rank, so that uneven shares weigh too much."""

    needs = ("forget",)

    @property
    def phases(self):
        return [Phase("forget", mode="eval")]

    def mean_loss(self, losses, batch):
        return losses.mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.model.parameters(), lr=0.1)


class NeverReduced(EvaluationMetric):
    """Sums that stay on their rank."""

    key = "never_reduced"
    inputs = ("unlearned", "target")

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="max")
        self.add_state("count", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, unlearned, target):
        self.total = self.total + functional.cross_entropy(self._wide(unlearned), target, reduction="sum")
        self.count = self.count + len(target)

    def compute(self):
        from supreme.errors import DataError

        if not self.count or self.total.isnan():
            raise DataError("nothing to divide by")
        return self.total / self.count
