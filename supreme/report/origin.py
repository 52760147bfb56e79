"""Where a number comes from: everything that a record says about its run, as one foldable piece of HTML."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from supreme.experiment.run_columns import DRAW
from supreme.report.labels import clean, method_label, printable
from supreme.report.markup import Markup, join, tag
from supreme.report.records import SEEDS, describe

_TEXTS = (
    ("Record", "key"),
    ("Plan", "plan"),
    ("Configuration hash", "config_hash"),
    ("Data fingerprint", "fingerprint"),
    ("Git commit", "git_commit"),
    ("Started", "started"),
    ("Finished", "finished"),
)
_MAPPINGS = (
    ("Versions", "versions"),
    ("Hardware", "hardware"),
    ("Method arguments", "method_arguments"),
    ("Sizes of the sets", "scenario_sizes"),
    ("Stages", "stages"),
)


def run_details(record: Mapping[str, Any], run: Mapping[str, Any], *, whole: bool = True) -> Markup:
    """One run, folded: state and seeds in its heading, its origin and all its values inside.

    Args:
        record: the record.
        run: its row of the frame.
        whole: whether to show all values and the configuration, else only its hash and the name of the record's file.
    """
    error = record.get("error") or {}
    heading = clean(f"{error.get('type')}: {error.get('message')}", 1000)
    return tag(
        "details",
        _summary(run, record),
        tag("h4", heading, class_="failed") if error else "",
        tag("pre", printable(error["traceback"]), class_="trace") if error.get("traceback") else "",
        tag("div", _origin(record, run), _values(record.get("metrics") or {}) if whole else "", class_="split"),
        _config(record) if whole else tag("p", f"Values and configuration: records/{run['key']}.json", class_="soft"),
        class_="run",
        data_entry=f"{run['method']} ({run['variant']})" if run["variant"] else run["method"],
        data_target=run["target"],
    )


def _config(record: Mapping[str, Any]) -> Markup:
    text = json.dumps(record.get("config") or {}, indent=2, default=str)
    return tag("details", tag("summary", "Configuration"), tag("pre", text))


def _summary(run: Mapping[str, Any], record: Mapping[str, Any]) -> Markup:
    state = run["status"]
    kind = state if state in ("done", "failed") else "other"
    name = method_label(run["method"], run["variant"])
    flags = [word for word in ("superseded", "contended") if run[word]]
    return tag(
        "summary",
        tag("span", clean(state).replace("_", " "), class_=f"state {kind}"),
        f" {name}, target {clean(run['target'], 60)}, seed {_seeds(run)}{_draw(record)}",
        tag("span", f" ({', '.join(flags)})", class_="other") if flags else "",
    )


def _seeds(run: Mapping[str, Any]) -> str:
    """The seed of a run, where they differ training/unlearning/evaluation."""
    seeds = dict.fromkeys(str(run[name]) for name in SEEDS)
    return "/".join(str(run[name]) for name in SEEDS) if len(seeds) > 1 else next(iter(seeds))


def _origin(record: Mapping[str, Any], run: Mapping[str, Any]) -> Markup:
    seeds = f"training {run['training_seed']}, unlearning {run['unlearning_seed']}, evaluation {run['evaluation_seed']}"
    pairs = [("Seeds", seeds + _draw(record))]
    pairs += [(label, clean(record.get(key) or "-", 400)) for label, key in _TEXTS]
    pairs += [(label, clean(describe(record.get(key) or {}) or "-", 1000)) for label, key in _MAPPINGS]
    contended = "yes, several runs shared the device" if run["contended"] else "no"
    return tag("div", tag("h4", "Origin"), _pairs([*pairs, ("Contended", contended)]))


def _draw(record: Mapping[str, Any]) -> str:
    """The seed of the draw of the samples to forget, where they were drawn."""
    draw = record["run"].get(DRAW)
    return "" if draw is None else f", draw {draw}"


def _values(metrics: Mapping[str, Any]) -> Markup:
    pairs = [(clean(key), "-" if value is None else f"{value:.6g}") for key, value in sorted(metrics.items())]
    return tag("div", tag("h4", "Values"), _pairs(pairs)) if pairs else Markup()


def _pairs(pairs: Iterable[tuple[str, str]]) -> Markup:
    return tag("dl", *(join(tag("dt", name), tag("dd", value)) for name, value in pairs), class_="pairs")
