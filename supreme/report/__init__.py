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
        "beside_grids": "beside",
        "frame": "records",
        "is_current": "write",
        "leaders": "leaderboard",
        "print_grids": "grid_text",
        "print_tables": "text",
        "read_records": "records",
        "read_results": "beside",
        "seed_grids": "seeds",
        "side_by_side": "beside",
        "tables": "table",
        "write_grids": "write",
        "write_report": "write",
    },
)
