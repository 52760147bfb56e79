"""Experiments: a plan file turned into runs, done by any number of workers, kept in a store."""

from supreme.components import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "Plan": "plan",
        "Progress": "progress",
        "Run": "plan",
        "Stage": "stage",
        "StatusReport": "status",
        "Store": "store",
        "Summary": "scheduler",
        "load_plan": "plan",
        "progress_for": "progress",
        "run_plan": "scheduler",
    },
)
