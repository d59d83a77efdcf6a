"""Where prompts come from: files, folders, data sets, standard input, Python, the tiny world."""

from bestofn.dataset.sources.base import FORMS, Row, Source
from bestofn.dataset.sources.prompts import SourceOptions, iter_prompts, read_prompts
from bestofn.dataset.sources.rows import count_rows, read_rows

__all__ = [
    "FORMS",
    "Row",
    "Source",
    "SourceOptions",
    "count_rows",
    "iter_prompts",
    "read_prompts",
    "read_rows",
]
