"""The tiny world: a small language model that ships with the package, and its verifier.

`load_engine("tiny")` loads the model. `heldout_tasks` gives instructions that it was never
trained on, `verify` says whether a response to one is right.
"""

from bestofn.tiny.world import Task, answer, draw, heldout_tasks, read, verify

__all__ = ["Task", "answer", "draw", "heldout_tasks", "read", "verify"]
