"""Variables that vLLM reads when it is imported, so that this comes before it."""

import os

QUIET = "VLLM_LOGGING_LEVEL" not in os.environ
"""Whether vLLM's processes keep what they say to themselves; what they die of is told anyway."""

os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
# Standard output is for results.
os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")
