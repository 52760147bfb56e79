"""Index sets of the scenario, written where they can be audited."""

from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from supreme.errors import ConfigError


class ExportSplits(Callback):
    """Writes which samples are forgotten and retained, and the class counts of every set, when a run is set up.

    Calls ``trainer.datamodule.export(folder)`` on rank 0; every scenario has it.

    Args:
        folder: where the files go; None is the trainer's log folder.

    Raises:
        ConfigError: at set-up, if the trainer has no data module or one that cannot export its splits.

    Example:
        >>> ExportSplits("runs/splits").folder
        'runs/splits'
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self.folder = folder

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write the files; the data module is set up before its callbacks."""
        datamodule = getattr(trainer, "datamodule", None)
        export = getattr(datamodule, "export", None)
        if not callable(export):
            got = "none" if datamodule is None else type(datamodule).__name__
            raise ConfigError(
                f"ExportSplits expects a scenario as data module, got {got}; pass one with datamodule= or drop "
                "the callback."
            )
        folder = output_folder(trainer, self.folder)
        if trainer.is_global_zero:
            export(folder)


def output_folder(trainer: Trainer, folder: str | Path | None) -> Path:
    """The folder itself, or the trainer's log folder for None; every rank has to call."""
    if folder is not None:
        return Path(folder)
    return Path(trainer.log_dir or trainer.default_root_dir)
