"""MIA: a membership inference attack on the entropy of the outputs."""

from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold
from torch import Tensor

from supreme import seeding
from supreme.batch import PARTS
from supreme.errors import ConfigError, DataError
from supreme.functional.membership import entropy
from supreme.metrics.table import Table

_RETAIN_TEST, _FORGET_TEST, _RETAIN_TRAIN, _FORGET_TRAIN = range(len(PARTS))


class MIA(Table):
    """Share of the forget set D_f that a membership attack takes for training data, and how good the attack is.

    A logistic regression on the entropy of the softmax output (nats) is fitted on members (D_r) against non-members
    (all of D'), classes weighted to balance, and asked about D_f. Best is the value of the retrained model, not 0.

    ``mia_auc`` is the attack's own quality: members and non-members are split into stratified folds, the attack is
    fitted without one fold and ranks that fold, and the areas under the ROC curves are averaged (areas, not scores,
    because scores of separately fitted attacks have no common scale). At 0.5 the attack knows nothing and ``mia`` is
    void (0 where all entropies are equal). It is left out when there are fewer than two members or two non-members.

    Args:
        seed: seed s_e of the folds; ``mia`` itself draws nothing.
        folds: number of folds, fewer if there are fewer members or non-members.
        regularisation: scikit-learn's C, the inverse strength of the L2 penalty.
        kwargs: arguments of ``torchmetrics.Metric``.

    Raises:
        ConfigError: if there are fewer than 2 folds or the regularisation is not positive.

    Example:
        >>> metric = MIA()
        >>> sure, unsure = torch.tensor([[9.0, 0.0]]), torch.tensor([[0.1, 0.0]])
        >>> logits = torch.cat([unsure.repeat(4, 1), sure.repeat(6, 1), unsure, sure])
        >>> part = torch.tensor([0, 0, 1, 1] + [2] * 6 + [3, 3])
        >>> metric.update(logits, part, torch.arange(12))
        >>> {name: float(value) for name, value in metric.compute().items()}
        {'mia': 0.5, 'mia_auc': 1.0}

    Reference:
        Foster et al. 2024, Selective Synaptic Dampening, arXiv:2308.07707 (attack by logistic regression on entropy);
        Chundawat et al. 2023, arXiv:2205.08096 (the same with a support vector machine).

    Differs from the published code in: nothing that changes ``mia`` on one process; it uses the two-class softmax form
    with C = 1, which is the binary form with C = 2 used here. With several processes it counts padded samples twice.
    ``mia_auc`` is new. ``regularisation=1`` gives the binary form with scikit-learn's default strength.
    """

    key: str = "mia"
    inputs: tuple[str, ...] = ("unlearned", "part", "index")
    needs: ClassVar[tuple[str, ...]] = ("train",)
    paper: ClassVar[str] = "Foster et al. 2024, arXiv:2308.07707"
    plot_lower_bound: float | None = 0.0
    plot_upper_bound: float | None = 1.0

    def __init__(self, seed: int = 0, folds: int = 5, regularisation: float = 2.0, **kwargs: Any) -> None:
        super().__init__(width=1, **kwargs)
        if folds < 2 or not regularisation > 0:
            raise ConfigError(
                f"Expected at least 2 folds and a positive regularisation, got folds={folds} and "
                f"regularisation={regularisation}; the defaults are 5 and 2."
            )
        self.seed, self.folds, self.regularisation = seed, folds, regularisation

    def update(self, unlearned: Tensor, part: Tensor, index: Tensor) -> None:
        """Add the samples of a batch.

        Args:
            unlearned: float (n, K), logits.
            part: int64 (n,), positions in ``supreme.batch.PARTS``.
            index: int64 (n,), position in D or D'.
        """
        self._append(part, index, entropy(self._wide(unlearned))[:, None])

    def compute(self) -> Any:
        """``mia`` in [0, 1] and ``mia_auc`` in [0, 1], float64 scalars.

        Raises:
            DataError: if members, non-members or forget samples are missing, or if outputs were NaN.
        """
        members, others, forget = self._features()
        features = np.concatenate([members, others])[:, None]
        labels = np.repeat([1, 0], [len(members), len(others)])
        called_member = self._fit(features, labels).predict(forget[:, None])
        values = {"mia": float(called_member.mean())}
        folds = min(self.folds, len(members), len(others))
        if folds >= 2:
            values["mia_auc"] = self._held_out_auc(features, labels, folds)
        return {name: torch.tensor(value, dtype=torch.float64, device=self.device) for name, value in values.items()}

    def _features(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Entropies of members, non-members and forget samples."""
        rows = self._rows()
        part, feature = rows.part.numpy(), rows.values[:, 0].numpy()
        members, forget = feature[part == _RETAIN_TRAIN], feature[part == _FORGET_TRAIN]
        others = feature[(part == _RETAIN_TEST) | (part == _FORGET_TEST)]
        if not (len(members) and len(others) and len(forget)):
            raise DataError(
                f"Expected samples of D_r (members), D' (non-members) and D_f for {self.key}, got {len(members)}, "
                f"{len(others)} and {len(forget)}; evaluate the training set too or leave the metric out."
            )
        return members, others, forget

    def _fit(self, features: np.ndarray, labels: np.ndarray) -> LogisticRegression:
        """The attack, fitted to its optimum (the default tolerance would stop early where all entropies are small)."""
        attack = LogisticRegression(C=self.regularisation, class_weight="balanced", tol=1e-10, max_iter=1000)
        return attack.fit(features, labels)

    def _held_out_auc(self, features: np.ndarray, labels: np.ndarray, folds: int) -> float:
        split = StratifiedKFold(folds, shuffle=True, random_state=seeding.derive(self.seed, "mia") % 2**32)
        areas = []
        for fitted, held_out in split.split(features, labels):
            scores = self._fit(features[fitted], labels[fitted]).decision_function(features[held_out])
            areas.append(float(roc_auc_score(labels[held_out], scores)))
        return float(np.mean(areas))
