"""Callbacks: what a fit costs (time, memory, utilisation), which samples it used, and a record of what ran."""

from supreme.components import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "ElapsedTime": "time",
        "ExportSplits": "export_splits",
        "MetricCosts": "metric_costs",
        "PeakMemory": "memory",
        "Procedure": "procedure",
        "RunRecord": "run_record",
        "Utilisation": "utilisation",
        "git_commit": "environment",
        "hardware": "environment",
        "unmeasured": "procedure",
        "versions": "environment",
    },
)
