"""Options of the commands that need no Trainer, so that nothing heavy is imported for them."""

import argparse
import re
from typing import Any, NoReturn

from supreme.errors import ConfigError, UnknownNameError


class Options(argparse.ArgumentParser):
    """An argument parser whose errors are one sentence and name what is near.

    Args:
        command: the words that call it, for example ``"supreme run"``.
        description: what it does.

    Raises:
        ConfigError: in ``parse_args``, if a value is missing or unfit.
        UnknownNameError: in ``parse_args``, if an option is unknown.

    Example:
        >>> options = Options("supreme run", "Compare.")
        >>> _ = options.add_argument("--workers", type=int)
        >>> options.parse_args(["--worker", "2"])
        Traceback (most recent call last):
        supreme.errors.UnknownNameError: Unknown option of supreme run: '--worker'; did you mean '--workers'?
    """

    def __init__(self, command: str, description: str) -> None:
        super().__init__(
            prog=command,
            description=description,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self._known: list[str] = ["--help"]

    def add_argument(self, *names: Any, **settings: Any) -> argparse.Action:
        """Add an option or a positional argument, as in argparse."""
        action = super().add_argument(*names, **settings)
        if hasattr(self, "_known"):  # argparse adds --help before
            self._known += [name for name in action.option_strings if name.startswith("--")]
        return action

    def error(self, message: str) -> NoReturn:
        """Raise the error instead of printing the usage."""
        unknown = re.match(r"unrecognized arguments: (\S+)", message)
        if unknown and unknown[1].startswith("-"):
            name = unknown[1].partition("=")[0]
            raise UnknownNameError(f"option of {self.prog}:", name, self._known)
        if unknown:
            raise ConfigError(f"Unexpected word '{unknown[1]}'; '{self.prog} --help' shows what is expected.")
        raise ConfigError(f"{message[:1].upper()}{message[1:]}; '{self.prog} --help' shows what is expected.")
