"""Plans and fragments of configuration that come with the package, found by name wherever it is installed."""

from pathlib import Path

from supreme.errors import UnknownNameError
from supreme.experiment.plan_file import FOLDER, config_folders


def shipped_file(text: str) -> Path | None:
    """The file of this package that a path or a name means, None if it means none.

    Args:
        text: ``"configs/method/ssd.yaml"``, ``"method/ssd.yaml"``, ``"method/ssd"`` or ``"quickstart"``.

    Example:
        >>> shipped_file("quickstart").name
        'quickstart.yaml'
    """
    parts = Path(text).parts
    parts = parts[1:] if parts[:1] == (FOLDER,) else parts
    if not parts or ".." in parts or Path(text).is_absolute():
        return None
    for root in config_folders():
        for name in (Path(*parts), Path(*parts[:-1], f"{parts[-1]}.yaml"), Path("plans", f"{parts[-1]}.yaml")):
            if name.suffix in (".yaml", ".yml") and (root / name).is_file():
                return root / name
    return None


def plan_file(text: str) -> Path:
    """The plan that a path or a name means; a file that is there wins over a shipped one.

    Raises:
        UnknownNameError: if there is neither; the text names near plans.
    """
    path = Path(text)
    if path.is_file():
        return path
    found = shipped_file(text)
    if found is None:
        hint = "Give the path of a YAML file or the name of a shipped plan."
        raise UnknownNameError("plan", text, shipped_plans(), hint)
    return found


def shipped_plans() -> list[str]:
    """Names of the plans that come with the package."""
    return sorted(
        {
            file.stem
            for root in config_folders()
            for pattern in ("*.yaml", "plans/*.yaml")
            for file in root.glob(pattern)
        }
    )
