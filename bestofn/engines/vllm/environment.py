"""Variables that vLLM reads when it is imported, so that this comes before it."""

import os

# More than errors on request, such as by VLLM_LOGGING_LEVEL=INFO.
QUIET = os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR") == "ERROR"
"""Whether vLLM's processes keep what they say to themselves; what they die of is told anyway."""

# Standard output is for results.
os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")
