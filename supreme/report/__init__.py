"""Results of many runs as tables, plots and one page; nothing here imports torch.

``read_records`` -> ``frame`` -> ``tables`` -> ``print_tables``; ``write_report`` does all of it and writes the files.
"""

from supreme.components import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "Cell": "table",
        "Row": "table",
        "Table": "table",
        "frame": "records",
        "print_tables": "text",
        "read_records": "records",
        "tables": "table",
        "write_report": "write",
    },
)
