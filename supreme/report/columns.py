"""Columns of the result tables: title, unit, decimals, and which value is best."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from supreme.report.labels import clean

Best = Literal["none", "zero", "low", "high", "retrained"]
SETS = ("forget", "retain", "whole")


@dataclass(frozen=True)
class Column:
    """One metric as a table column.

    Args:
        key: metric key in the records.
        group: heading shared by neighbouring columns.
        name: the column's own heading, "" when the group's is enough.
        header: both in short, as lines for a narrow terminal.
        scale: factor from the record's unit to the printed one.
        digits: decimals; None chooses them from the values.
        significant: digits that the smallest value keeps when the decimals are chosen.
        best: which value is best: nearest to 0, lowest, highest, nearest to the retrained model (by the metric's
            gap), or none.
        about: one line that says what the number is.
    """

    key: str
    group: str
    name: str = ""
    header: str = ""
    scale: float = 1.0
    digits: int | None = None
    significant: int = 3
    best: Best = "none"
    about: str = ""

    @property
    def title(self) -> str:
        """The whole heading on one line."""
        return f"{self.group}: {self.name}" if self.name else self.group


def _pair(metric: str, group: str, header: str, about: str, **more: object) -> tuple[Column, ...]:
    """The forget and the retain column of a metric."""
    return tuple(
        Column(f"{part}/{metric}", group, part, header.format(part), about=about, **more)  # type: ignore[arg-type]
        for part in ("forget", "retain")
    )


COLUMNS: tuple[Column, ...] = (
    *_pair("accuracy", "Accuracy (%)", "{}\nacc %", "Share of images classified correctly.", scale=100.0, digits=2),
    *_pair(
        "accuracy_gap",
        "Gap (points)",
        "{}\ngap pp",
        "Accuracy minus that of the retrained model M_r, in percentage points; 0 is best.",
        scale=100.0,
        digits=2,
        best="zero",
    ),
    *_pair(
        "activation_distance",
        "Activation distance",
        "act. dist.\n{}",
        "Mean L2 distance between the class probabilities of the model and of M_r; 0 is best.",
        digits=3,
        best="low",
    ),
    *_pair(
        "js_divergence",
        "JS divergence",
        "JS div.\n{}",
        "Mean Jensen-Shannon divergence to M_r, base 2, in [0, 1]; 0 is best.",
        digits=3,
        best="low",
    ),
    *_pair(
        "completeness",
        "Completeness",
        "complete.\n{}",
        "Share of images on which the model and M_r predict the same class; 1 is best.",
        digits=3,
        best="high",
    ),
    Column(
        "layerwise_distance",
        "Layer-wise distance",
        header="layer-wise\ndistance",
        digits=2,
        best="low",
        about="L2 distance between the weights of the model and of M_r.",
    ),
    Column(
        "mia",
        "MIA",
        "share",
        "MIA",
        digits=3,
        best="retrained",
        about="Share of forget images that a membership attack takes for training images; best is what M_r has.",
    ),
    Column("mia_gap", "MIA", "gap", "MIA\ngap", digits=3, best="zero", about="MIA minus that of M_r; 0 is best."),
    Column(
        "forget/zrf",
        "ZRF",
        header="ZRF",
        digits=3,
        best="retrained",
        about="1 minus the mean JS divergence to an untrained teacher on forget images; best is what M_r has.",
    ),
    Column(
        "time_s",
        "Cost",
        "time (s)",
        "time\ns",
        significant=2,
        best="low",
        about="Wall-clock time of the unlearning procedure. Importances of D that were computed once for all targets "
        "count in full; time_s_reused in the records is the time without them.",
    ),
    Column(
        "speedup",
        "Cost",
        "speed-up",
        "speed-up\nx",
        digits=1,
        best="high",
        about="Time of retraining divided by the time of the method.",
    ),
    Column(
        "peak_memory_bytes",
        "Cost",
        "memory (MiB)",
        "memory\nMiB",
        scale=2.0**-20,
        digits=1,
        best="low",
        about="Peak memory during the procedure minus the value just before.",
    ),
)

_KNOWN = {"accuracy", "loss", "activation_distance", "js_divergence", "completeness", "layerwise_distance"} | {
    *("zrf", "zrf_original", "zrf_retrained", "mia", "mia_auc"),
    *("time_s", "time_s_reused", "speedup", "peak_memory_bytes", "utilisation"),
}


def is_known(key: str) -> bool:
    """Whether SUPREME itself measures ``key``; others come from metrics that users wrote.

    Example:
        >>> is_known("forget/loss_gap"), is_known("forget/sharpness")
        (True, False)
    """
    part, _, name = key.rpartition("/")
    return part in ("", *SETS) and name.removesuffix("_gap") in _KNOWN


def in_order(keys: Iterable[str]) -> list[str]:
    """Metric keys in table order: the tables' own columns, then SUPREME's other metrics, then unknown ones.

    Example:
        >>> in_order(["sharpness", "whole/loss", "mia", "forget/accuracy"])
        ['forget/accuracy', 'mia', 'whole/loss', 'sharpness']
    """
    place = {column.key: number for number, column in enumerate(COLUMNS)}
    return sorted(keys, key=lambda key: (place.get(key, len(place)), not is_known(key), key))


def extra(key: str) -> Column:
    """The column of a metric without one of its own."""
    best: Best = "zero" if key.endswith("_gap") else "none"
    return Column(key, clean(key), "", clean(key).replace("/", "/\n"), best=best)


def decimals(column: Column, means: Iterable[float]) -> int:
    """Decimals of a column: its own, else so many (at most 4) that the smallest value keeps its digits.

    Example:
        >>> decimals(Column("time_s", "Cost"), [0.5, 120.0]), decimals(Column("time_s", "Cost"), [14.0])
        (3, 1)
    """
    if column.digits is not None:
        return column.digits
    sizes = [abs(mean * column.scale) for mean in means if math.isfinite(mean) and mean]
    return min(4, max(0, column.significant - 1 - math.floor(math.log10(min(sizes))))) if sizes else 2


def number(value: float, digits: int) -> str:
    """A value as printed: fixed decimals, no minus before zero, powers of ten where decimals would show nothing.

    Example:
        >>> number(-0.001, 2), number(12.345, 2), number(0.00000123, 4)
        ('0.00', '12.35', '1.2e-06')
    """
    if not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    if digits >= 4 and 0 < abs(value) < 0.001:
        return f"{value:.1e}"
    text = f"{value:.{digits}f}"
    return text[1:] if text.startswith("-") and not text.strip("-0.") else text
