"""Callbacks: what a fit costs (time, memory, utilisation), how its loss falls, its samples, what ran; compiling."""

from supreme.components import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "Compile": "compile",
        "ElapsedTime": "time",
        "ExportSplits": "export_splits",
        "LossCurve": "loss_curve",
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
