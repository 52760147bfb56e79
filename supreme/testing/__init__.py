"""Contract tests for components of your own: what any method, metric or scenario has to keep, checked in one call."""

from supreme.components import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "check_method": "methods",
        "check_metric": "metrics",
        "check_scenario": "scenarios",
        "in_processes": "processes",
    },
)
