"""Where prompts come from: files, folders, data sets, standard input, Python, the tiny world."""

from bestofn.dataset.sources.files import Row
from bestofn.dataset.sources.prompts import PromptForm, SourceOptions, iter_prompts, read_prompts
from bestofn.dataset.sources.rows import Source, count_rows, read_rows

__all__ = [
    "PromptForm",
    "Row",
    "Source",
    "SourceOptions",
    "count_rows",
    "iter_prompts",
    "read_prompts",
    "read_rows",
]
