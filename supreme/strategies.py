"""Strategies by name: ``fsdp`` is FSDP2, ``deepspeed_stage_1`` to ``_3`` also run on a CPU; and the quiet Trainer."""

import copy
import importlib
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from lightning.fabric.utilities.seed import reset_seed
from lightning.pytorch import Trainer
from lightning.pytorch.accelerators import CPUAccelerator, CUDAAccelerator
from lightning.pytorch.profilers import PassThroughProfiler
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy, Strategy

from supreme.errors import ConfigError
from supreme.precision import MATMUL_PRECISIONS, refuse_first_fsdp, trainer_precision

_ZERO = {f"deepspeed_stage_{stage}": stage for stage in (1, 2, 3)} | {"deepspeed": 2}
_OWN_PROCESSES = ("spawn", "fork", "notebook", "single", "xla")  # strategies that start processes in their own way


class FSDP2(ModelParallelStrategy):
    """Fully sharded data parallel over all devices (torch ``fully_shard``), without tensor parallelism.

    Lightning's model-parallel strategy puts the devices of a node into one tensor-parallel group by default; this class
    makes all of them data parallel. The modules of this package shard themselves in ``configure_model``.

    Example:
        >>> strategy = FSDP2(save_distributed_checkpoint=False)
    """

    def setup_environment(self) -> None:
        """Make every process a member of the data-parallel group."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        self._tensor_parallel_size = 1
        super().setup_environment()


class ZeRO(DeepSpeedStrategy):
    """DeepSpeed's ZeRO as Lightning runs it, and on a CPU too, where Lightning refuses it.

    On a CPU the processes talk over gloo and nothing is compiled.

    Args:
        stage: 1 splits the optimiser's state, 2 the gradients too, 3 the weights too.
        arguments: as in Lightning's ``DeepSpeedStrategy``.

    Raises:
        ConfigError: if deepspeed is not installed.
    """

    def __init__(self, stage: int = 2, **arguments: Any) -> None:
        if importlib.util.find_spec("deepspeed") is None:
            raise ConfigError("DeepSpeed is not installed; pip install 'supreme-lightning[deepspeed]'.")
        if not torch.cuda.is_available():
            os.environ.setdefault("DS_ACCELERATOR", "cpu")  # read when deepspeed is imported
        super().__init__(stage=stage, **{"logging_level": logging.ERROR, **arguments})

    @property
    def root_device(self) -> torch.device:
        """The device of this rank; DeepSpeed wants it numbered."""
        return torch.device("cpu", 0) if self._on_cpu else super().root_device

    def setup_environment(self) -> None:
        """As Lightning does it, but for the refusal of CPUs."""
        if self._on_cpu:
            super(DeepSpeedStrategy, self).setup_environment()
        else:
            super().setup_environment()

    def setup_distributed(self) -> None:
        """Join the process group, on a CPU without the kernel that would be compiled for it."""
        if not self._on_cpu:
            super().setup_distributed()
            return
        deepspeed, environment = importlib.import_module("deepspeed"), self.cluster_environment
        if environment is None:
            raise RuntimeError("a strategy has its environment before it is set up")
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        reset_seed()
        self.set_world_ranks()
        place: dict[str, Any] = {"RANK": self.global_rank, "WORLD_SIZE": self.world_size, "LOCAL_RANK": self.local_rank}
        place |= {"MASTER_ADDR": environment.main_address, "MASTER_PORT": environment.main_port}
        os.environ.update({name: str(value) for name, value in place.items()})
        deepspeed.init_distributed("gloo", distributed_port=environment.main_port)

    @property
    def _on_cpu(self) -> bool:
        return isinstance(self.accelerator, CPUAccelerator)


def resolve_strategy(strategy: str | Strategy) -> str | Strategy:
    """The strategy that a name stands for here.

    ``"fsdp"`` is :class:`FSDP2` and ``"deepspeed_stage_1"`` to ``"deepspeed_stage_3"`` are :class:`ZeRO`; the others
    are Lightning's.

    Raises:
        ConfigError: for Lightning's first FSDP, which several methods cannot run on; if deepspeed is asked for and not
            installed.

    Example:
        >>> type(resolve_strategy("fsdp")).__name__, resolve_strategy("ddp")
        ('FSDP2', 'ddp')
    """
    check_strategy(strategy)
    if strategy in ("fsdp", "fsdp2"):
        return FSDP2(save_distributed_checkpoint=False)
    return ZeRO(_ZERO[strategy]) if isinstance(strategy, str) and strategy in _ZERO else strategy


def check_strategy(strategy: Strategy | str | None) -> None:
    """Refuse Lightning's first FSDP.

    Raises:
        ConfigError: if it is that.
    """
    refuse_first_fsdp("fsdp1" if isinstance(strategy, FSDPStrategy) else strategy)


def check_gradients(user: str, trainer: Trainer) -> None:
    """Refuse to read importances from gradients that overflow before anything can look at them.

    In 16-mixed, DeepSpeed holds weights and gradients in float16 and multiplies the loss by 2^16; elsewhere gradients
    are float32.

    Args:
        user: who reads them, for example the name of a method.
        trainer: of the coming fit.

    Raises:
        ConfigError: in 16-mixed under DeepSpeed.
    """
    if isinstance(trainer.strategy, DeepSpeedStrategy) and str(trainer.precision) == "16-mixed":
        raise ConfigError(
            f"{user} does not work in 16-mixed under DeepSpeed, whose scaled float16 gradients overflow; choose "
            "32-true or bf16-mixed, or ddp or fsdp as the strategy."
        )


def evaluation_strategy(strategy: str | Strategy) -> str | Strategy:
    """The strategy under which models are evaluated: DeepSpeed has nothing to split but what it trains.

    Args:
        strategy: the strategy of the training.

    Returns:
        ``"ddp"`` for ZeRO-1 and 2, ``"fsdp"`` for ZeRO-3, which splits weights as FSDP2 does; else the same.

    Example:
        >>> [evaluation_strategy(name) for name in ("deepspeed_stage_1", "deepspeed_stage_3", "auto")]
        ['ddp', 'fsdp', 'auto']
    """
    if isinstance(strategy, DeepSpeedStrategy):
        return "fsdp" if strategy.zero_stage_3 else "ddp"
    if isinstance(strategy, str) and strategy.startswith("deepspeed"):
        return "fsdp" if "stage_3" in strategy else "ddp"
    return strategy


def splits_weights(strategy: str | Strategy) -> bool:
    """Whether modules of this package split their networks over the ranks themselves, as they do under FSDP2.

    Example:
        >>> splits_weights("fsdp"), splits_weights("ddp")
        (True, False)
    """
    return strategy in ("fsdp", "fsdp2") or isinstance(strategy, ModelParallelStrategy)


def ranks_needed(
    accelerator: str = "auto", devices: int | str | list[int] = 1, strategy: str | Strategy = "auto", num_nodes: int = 1
) -> int:
    """How many processes of this machine have to form a group for a Trainer with these arguments.

    Returns:
        Their number, or 0 where this process can do the work alone or the strategy starts processes in its own way
        (``ddp_spawn``, ``ddp_fork``).

    Raises:
        ConfigError: for strategies that cannot be used here, and for several nodes.

    Example:
        >>> ranks_needed("cpu", 2, "fsdp"), ranks_needed("cpu", 1)
        (2, 0)
    """
    check_strategy(strategy)
    if isinstance(strategy, str) and any(word in strategy for word in _OWN_PROCESSES):
        return 0
    if (strategy, str(devices), num_nodes) == ("auto", "1", 1):
        return 0
    named = isinstance(strategy, str)
    trainer = quiet_trainer(accelerator, devices, "auto" if named else copy.deepcopy(strategy))
    if not isinstance(trainer.accelerator, CPUAccelerator | CUDAAccelerator):
        return 0
    # The launcher that runs the program again knows its environment; those that fork or spawn have none.
    if not named and not hasattr(trainer.strategy.launcher, "cluster_environment"):
        return 0
    if num_nodes > 1:
        raise ConfigError(
            f"Expected one process for each device of {num_nodes} nodes, but this one was started alone; start it on "
            "every node with torchrun or through SLURM."
        )
    count: int = trainer.num_devices
    return 0 if strategy == "auto" and count == 1 else count


class Unprofiled(PassThroughProfiler):
    """Profiles nothing, without the cost of a context for each of the twenty actions that a Trainer names in a step.

    Example:
        >>> with Unprofiled().profile("an action"):
        ...     pass
    """

    def profile(self, action_name: str) -> AbstractContextManager[None]:  # type: ignore[override]
        """A context that does nothing."""
        return _NOTHING


_NOTHING = nullcontext()


def quiet_trainer(
    accelerator: str = "auto",
    devices: int | str | list[int] = 1,
    strategy: str | Strategy = "auto",
    precision: Any = "32-true",
    **arguments: Any,
) -> Trainer:
    """A Trainer without logger, checkpoint, bar or summary, for work that reports in another way."""
    off = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    quiet: dict[str, Any] = {**dict.fromkeys(off, False), "num_sanity_val_steps": 0, "profiler": Unprofiled()}
    return Trainer(
        accelerator=accelerator,
        devices=devices,
        strategy=resolve_strategy(strategy),
        **trainer_precision(precision, accelerator, strategy),
        **(quiet | arguments),
    )


@contextmanager
def matmul_precision(value: str | None = None) -> Iterator[None]:
    """How exactly float32 matrices are multiplied inside the block.

    Args:
        value: ``"highest"`` (float32 throughout), ``"high"`` (tensor cores with TF32 or three bfloat16) or
            ``"medium"`` (bfloat16), as in ``torch.set_float32_matmul_precision``; None changes nothing.

    Raises:
        ConfigError: if it is none of these.

    Example:
        >>> with matmul_precision("high"):
        ...     torch.get_float32_matmul_precision()
        'high'
    """
    if value not in (None, *MATMUL_PRECISIONS):
        raise ConfigError(f"Expected matmul_precision {', '.join(MATMUL_PRECISIONS)}, got {value!r}.")
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(value or before)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def hushed() -> Iterator[None]:
    """Keep Lightning's notices about devices and unused settings out of the block."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning|torch|torchmetrics|jsonargparse")
            warnings.filterwarnings("ignore", message=".*(LeafSpec|litlogger|num_workers|lr_scheduler.step).*")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
