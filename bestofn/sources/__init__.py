"""Where prompts come from: files, folders, data sets, standard input, Python, the tiny world."""

from bestofn.sources.base import FORMS, Row, Source
from bestofn.sources.prompts import iter_prompts, read_prompts
from bestofn.sources.rows import read_rows

__all__ = ["FORMS", "Row", "Source", "iter_prompts", "read_prompts", "read_rows"]
