"""The whole thing as two functions: ``unlearn`` a model that you have, ``evaluate`` what came out."""

import copy
import inspect
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch.strategies import Strategy
from torch import nn
from torch.utils.data import Dataset

from supreme.callbacks import ElapsedTime, PeakMemory, Utilisation
from supreme.components import load, resolve
from supreme.distributed import evaluation_strategy, full_state_dict, hushed, quiet_trainer, ranks_needed
from supreme.distributed import matmul_precision as set_matmul_precision
from supreme.errors import ConfigError, DataError, nearest
from supreme.evaluation import Evaluation
from supreme.methods.base import UnlearningMethod
from supreme.metrics.base import EvaluationMetric
from supreme.models.build import reinitialise
from supreme.ranks import in_ranks, launched
from supreme.scenarios.given_sets import GivenSets
from supreme.scenarios.source import length, pair
from supreme.seeding import derive, isolated


@dataclass(frozen=True)
class Unlearned:
    """What :func:`unlearn` returns.

    Attributes:
        model: M_u, on the device of the original, in evaluation mode; the original is left as it was.
        time_s: wall-clock of the procedure alone, in seconds; None if nothing was done (Original).
        peak_memory_bytes: peak accelerator memory (host memory without an accelerator) minus the value before; None
            where it cannot be measured.
        utilisation: mean compute utilisation in [0, 1]; None where it cannot be measured.
    """

    model: nn.Module
    time_s: float | None
    peak_memory_bytes: float | None
    utilisation: float | None


def unlearn(
    model: nn.Module,
    method: str | type[UnlearningMethod] | UnlearningMethod,
    *,
    forget: Dataset[Any],
    retain: Dataset[Any],
    num_classes: int | None = None,
    forget_class: int | Sequence[int] | None = None,
    batch_size: int | None = None,
    shuffle: bool = True,
    seed: int = 0,
    accelerator: str = "auto",
    devices: int | str = 1,
    strategy: str | Strategy = "auto",
    precision: Any = "32-true",
    num_workers: int = 0,
    matmul_precision: str | None = None,
    **arguments: Any,
) -> Unlearned:
    """Remove the influence of a forget set from a trained classifier.

    On several devices, or with a strategy that needs a group of processes, these are started for the call and end with
    it; this process joins none. They import the calling script, so its work has to stand under
    ``if __name__ == "__main__":``, and classes must lie in a module. A program started with torchrun or srun is such a
    group already.

    Args:
        model: images (N, C, H, W) -> logits (N, K); left untouched. Every process holds it whole in host memory until
            the strategy has split it, which a network that a plan or the command line names does not cost.
        method: name (``"LFSSD"``), dotted path, class or instance of an :class:`UnlearningMethod`; an instance works
            on a copy of the original that it was made with, and keeps its own seed. With several processes the
            instance itself stays as it is.
        forget: D_f, a Dataset of (image tensor (C, H, W), class); served as it is, without any transform.
        retain: D_r, likewise.
        num_classes: number of logits; None asks the model with one image.
        forget_class: class or classes to be forgotten, for methods that need to know (UNSIR, RandomLabels).
        batch_size: rows of a global batch, over all devices; None takes the method's own where it has one, else 64.
        shuffle: False serves batches in the data's own order; D is retain followed by forget.
        seed: unlearning seed s_u; the global random generators are left as they were.
        accelerator: as in ``lightning.Trainer``.
        devices: as in ``lightning.Trainer``.
        strategy: as in ``lightning.Trainer``; ``"fsdp"`` is FSDP2, ``"deepspeed_stage_1"`` to ``"_3"`` run on CPUs too.
        precision: as in ``lightning.Trainer``.
        num_workers: processes that read ahead, for datasets that are not in memory.
        matmul_precision: how exactly float32 matrices are multiplied: ``"highest"``, or on tensor cores ``"high"`` or
            ``"medium"``; None leaves torch's setting.
        arguments: the method's own arguments; not allowed with an instance.

    Returns:
        The unlearned model with its time, memory and utilisation.

    Raises:
        UnknownNameError: if there is no such method.
        ConfigError: if an argument is unknown or outside its range.
        DataError: if a set is empty, its items are not (image tensor, class), or a class is not below the number of
            logits.
        NotApplicableError: if the method needs a class and none is given.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> images, classes = torch.randn(8, 1, 2, 2), torch.tensor([0, 1] * 4)
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        >>> forget, retain = TensorDataset(images[:2], classes[:2]), TensorDataset(images[2:], classes[2:])
        >>> result = unlearn(network, "SSD", forget=forget, retain=retain, accelerator="cpu", selection_weight=1.5)
        >>> type(result.model).__name__
        'Sequential'
    """
    if batch_size is not None and _takes(method, "batch_size"):
        arguments.setdefault("batch_size", batch_size)
    sets = {
        "forget": forget,
        "retain": retain,
        "num_classes": num_classes,
        "forget_classes": _classes(forget_class),
        "batch_size": 64 if batch_size is None else batch_size,
        "shuffle": shuffle,
        "num_workers": num_workers,
    }
    trainer = {"accelerator": accelerator, "devices": devices, "strategy": strategy, "precision": precision}
    about = method, sets, {"seed": seed, **arguments}, bool(arguments)
    state, found = _here_or_in_ranks(_unlearned, trainer, matmul_precision, model, *about)
    names = ("time_s", "peak_memory_bytes", "utilisation")
    return Unlearned(_like_before(model, state), *(found.get(name) for name in names))


def evaluate(
    unlearned: nn.Module,
    *,
    forget_train: Dataset[Any],
    retain_train: Dataset[Any],
    retain_test: Dataset[Any],
    forget_test: Dataset[Any] | None = None,
    retrained: nn.Module | None = None,
    original: nn.Module | None = None,
    incompetent: nn.Module | None = None,
    metrics: Sequence[str | EvaluationMetric] | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    accelerator: str = "auto",
    devices: int | str = 1,
    strategy: str | Strategy = "auto",
    precision: Any = "32-true",
    num_workers: int = 0,
    matmul_precision: str | None = None,
) -> dict[str, float]:
    """Compare an unlearned model with the retrained one; several devices are used as by :func:`unlearn`.

    Args:
        unlearned: M_u.
        forget_train: D_f.
        retain_train: D_r.
        retain_test: D'_r, or all of D' when ``forget_test`` is None.
        forget_test: D'_f; None means that D_f was drawn at random: D'_f = D_f and D' = ``retain_test``.
        retrained: M_r; without it there are no comparisons and no gaps.
        original: M_o; its ZRF is added.
        incompetent: a network with random weights for ZRF; None draws one of the architecture of ``unlearned``
            where that is possible and else leaves ZRF out.
        metrics: names or instances; None takes all.
        batch_size: rows of a global batch; None takes 64 on a CPU and 256 elsewhere.
        seed: evaluation seed s_e; drives the attack's folds only.
        accelerator: as in ``lightning.Trainer``.
        devices: as in ``lightning.Trainer``.
        strategy: as in ``lightning.Trainer``; ``"fsdp"`` is FSDP2; what was trained under DeepSpeed is evaluated as DDP
            (stages 1 and 2) or FSDP2 (stage 3).
        precision: as in ``lightning.Trainer``.
        num_workers: processes that read ahead, for datasets that are not in memory.
        matmul_precision: as for :func:`unlearn`.

    Returns:
        Values by key: ``<set>/<metric>`` with set ``whole``, ``retain`` or ``forget``, else ``<metric>``;
        ``<key>_gap`` is the value of M_u minus that of M_r. Fractions are in [0, 1]. The networks are left as they are.

    Raises:
        UnknownNameError: if there is no such metric.
        DataError: if a set is empty or its items are not (image tensor, class).
    """
    chosen = None if metrics is None else [make_metric(metric, seed) for metric in metrics]
    sets = {
        "forget": forget_train,
        "retain": retain_train,
        "forget_test": forget_test,
        "retain_test": retain_test,
        "evaluation_batch_size": batch_size,
        "num_workers": num_workers,
    }
    models = {"unlearned": unlearned, "retrained": retrained, "original": original, "incompetent": incompetent}
    trainer = {"accelerator": accelerator, "devices": devices, "precision": precision}
    trainer |= {"strategy": evaluation_strategy(strategy)}
    scores: dict[str, float] = _here_or_in_ranks(_evaluated, trainer, matmul_precision, models, sets, chosen, seed)
    return scores


def _here_or_in_ranks(
    work: Callable[..., Any], trainer: Mapping[str, Any], precision: str | None, *arguments: Any
) -> Any:
    """Do the work in this process, or in a group of processes where the Trainer needs one."""
    with hushed():
        count = 0 if launched() else ranks_needed(trainer["accelerator"], trainer["devices"], trainer["strategy"])
    share = work, trainer, precision, *arguments
    return in_ranks(count, _hushed_work, *share) if count else _hushed_work(*share)


def _hushed_work(work: Callable[..., Any], trainer: Mapping[str, Any], precision: str | None, *arguments: Any) -> Any:
    with hushed(), set_matmul_precision(precision):
        return work(trainer, *arguments)


def _unlearned(
    trainer_arguments: Mapping[str, Any],
    model: nn.Module,
    method: str | type[UnlearningMethod] | UnlearningMethod,
    sets: Mapping[str, Any],
    arguments: Mapping[str, Any],
    explicit: bool,
) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """State of M_u, and what it cost."""
    measures = [ElapsedTime(), PeakMemory(), Utilisation()]
    with isolated(arguments["seed"]):
        classes = count_classes(model, sets["retain"]) if sets["num_classes"] is None else sets["num_classes"]
        scenario = GivenSets(**{**sets, "num_classes": classes})
        module = make_method(method, model, arguments, explicit)
        trainer = quiet_trainer(**trainer_arguments, callbacks=measures, max_epochs=1)
        trainer.fit(module, datamodule=scenario)
        if module is not method:  # an instance of the caller's may be looked at
            module.release()
        state = full_state_dict(module.model)
    found = {name: float(value) for name, value in trainer.callback_metrics.items()}  # all that other processes say
    found |= {name: value for one in measures for name, value in one.resources().items() if value is not None}
    return state, found


def _evaluated(
    trainer_arguments: Mapping[str, Any],
    models: Mapping[str, nn.Module],
    sets: Mapping[str, Any],
    metrics: Sequence[EvaluationMetric] | None,
    seed: int,
) -> dict[str, float]:
    """The scores."""
    with isolated(seed):
        scenario = GivenSets(num_classes=count_classes(models["unlearned"], sets["retain_test"]), **sets)
        given: dict[str, Any] = {name: copy.deepcopy(model) for name, model in models.items()}
        if given["incompetent"] is None:
            key = derive(scenario.request.fingerprint, "incompetent teacher")
            given["incompetent"] = _teacher(models["unlearned"], key)
        evaluation = Evaluation(**given, metrics=metrics, random=sets["forget_test"] is None, seed=seed)
        quiet_trainer(**trainer_arguments).test(evaluation, datamodule=scenario, verbose=False)
    return evaluation.scores


def make_method(
    method: str | type[UnlearningMethod] | UnlearningMethod,
    original: nn.Module,
    arguments: Mapping[str, Any],
    explicit: bool = True,
) -> UnlearningMethod:
    """A method from its name, dotted path or class; an instance comes back as it is.

    Args:
        method: which method.
        original: M_o.
        arguments: arguments of the method.
        explicit: whether the caller named any of them, which an instance does not allow.

    Raises:
        UnknownNameError: if there is no such method.
        ConfigError: if an argument is unknown, missing, outside its range, or given beside an instance.
    """
    if isinstance(method, UnlearningMethod):
        if explicit:
            raise ConfigError(f"Expected no arguments beside an instance of {type(method).__name__}; give them to it.")
        return method
    chosen = load(resolve("methods", method)) if isinstance(method, str) else method
    if not (isinstance(chosen, type) and issubclass(chosen, UnlearningMethod)):
        raise ConfigError(f"Expected an UnlearningMethod, got {chosen!r}; subclass supreme.methods.UnlearningMethod.")
    given = dict(arguments)
    own_seed = "seed" in inspect.signature(chosen).parameters
    seed = 0 if own_seed else given.pop("seed", 0)
    check_arguments(chosen, given, taken=1)
    made = chosen(original, **given)
    if not own_seed:
        made.seed = seed
    return made


def make_metric(
    metric: str | EvaluationMetric, seed: int = 0, arguments: Mapping[str, Any] | None = None
) -> EvaluationMetric:
    """A metric from its name or dotted path; an instance comes back as it is.

    Args:
        metric: which metric.
        seed: evaluation seed, for metrics that take one.
        arguments: the metric's own arguments.

    Raises:
        UnknownNameError: if there is no such metric.
        ConfigError: if the name leads to something else.
    """
    if isinstance(metric, EvaluationMetric):
        return metric
    chosen = load(resolve("metrics", metric))
    if not (isinstance(chosen, type) and issubclass(chosen, EvaluationMetric)):
        raise ConfigError(f"Expected an EvaluationMetric, got {chosen!r}; subclass supreme.metrics.EvaluationMetric.")
    given = dict(arguments or {})
    check_arguments(chosen, given)
    takes_seed = "seed" in inspect.signature(chosen).parameters
    try:
        return chosen(**{"seed": seed, **given} if takes_seed else given)
    except ValueError as error:  # torchmetrics names arguments that it does not know
        raise ConfigError(f"{chosen.__name__} cannot be made with {given}: {error}") from error


def check_arguments(component: type, arguments: Mapping[str, Any], taken: int = 0) -> None:
    """Refuse arguments that a component does not take, naming the nearest ones.

    Args:
        component: class whose constructor is going to be called.
        arguments: arguments by name.
        taken: number of leading parameters that are given by position.

    Raises:
        ConfigError: if an argument is unknown or a required one is missing.
    """
    signature = inspect.signature(component)
    parameters = list(signature.parameters.values())[taken:]
    names = [p.name for p in parameters if p.kind is not inspect.Parameter.VAR_KEYWORD]
    for name in arguments:
        if name not in names and len(names) == len(parameters):
            near = nearest(name, names)
            hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"it takes {', '.join(names)}."
            raise ConfigError(f"{component.__name__} has no argument '{name}'; {hint}")
    try:
        signature.bind(*[None] * taken, **arguments)
    except TypeError as error:
        raise ConfigError(f"{component.__name__} cannot be made: {error}; give it as an argument.") from None


def count_classes(model: nn.Module, dataset: Dataset[Any]) -> int:
    """Number of logits, from one forward pass.

    Args:
        model: images (N, C, H, W) -> logits (N, K); left as it is.
        dataset: items (image tensor (C, H, W), class).

    Raises:
        DataError: if the set is empty, its items are something else, or the model does not answer with logits.
    """
    if length(dataset) == 0:
        raise DataError("Expected samples in every set, but the retain set is empty.")
    parameter = next(model.parameters(), torch.zeros(()))
    image = pair(dataset, 0)[0][None].to(parameter)
    modes = [(module, module.training) for module in model.modules()]
    try:
        with torch.no_grad():
            logits = model.eval()(image)
    finally:
        for module, training in modes:
            module.training = training
    if not isinstance(logits, torch.Tensor) or logits.dim() != 2:
        raise DataError("Expected a model that maps images (N, C, H, W) to logits (N, K); wrap it so that it does.")
    return int(logits.shape[1])


def _like_before(model: nn.Module, state: Mapping[str, torch.Tensor]) -> nn.Module:
    network = copy.deepcopy(model)
    network.load_state_dict(state)
    return network.eval()


def _takes(method: str | type[UnlearningMethod] | UnlearningMethod, argument: str) -> bool:
    """Whether a method that is yet to be made has an argument."""
    chosen = load(resolve("methods", method)) if isinstance(method, str) else method
    return inspect.isclass(chosen) and argument in inspect.signature(chosen).parameters


def _classes(forget_class: int | Sequence[int] | None) -> tuple[int, ...] | None:
    """The forget classes as whole numbers, one or several."""
    if forget_class is None:
        return None
    try:
        several = isinstance(forget_class, Sequence)
        return tuple(map(operator.index, forget_class if several else (forget_class,)))  # type: ignore[arg-type]
    except TypeError:
        raise ConfigError(f"Expected forget_class as a class number or a list of them, got {forget_class!r}.") from None


def _teacher(model: nn.Module, seed: int) -> nn.Module | None:
    """A network with random weights, None where the architecture cannot be initialised anew."""
    try:
        return reinitialise(model, seed)
    except ConfigError:
        return None
