"""Selection over datasets: durable rows, exports, clusters."""

from bestofn.dataset.config import Faults
from bestofn.dataset.run import select_dataset
from bestofn.dataset.summary import Summary

__all__ = ["Faults", "Summary", "select_dataset"]
