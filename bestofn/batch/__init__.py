"""Selection over datasets: durable rows, exports, clusters."""

from bestofn.batch.config import Faults
from bestofn.batch.select import select_dataset
from bestofn.batch.summary import Summary

__all__ = ["Faults", "Summary", "select_dataset"]
