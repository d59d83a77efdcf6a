"""Where prompts come from: files, folders, streams, Hugging Face datasets, the tiny world."""

from bestofn.sources.prompts import SourceOptions, iter_prompts, read_prompts
from bestofn.sources.rows import FORMS, Source, count_rows

__all__ = ["FORMS", "Source", "SourceOptions", "count_rows", "iter_prompts", "read_prompts"]
