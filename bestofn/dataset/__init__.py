"""Runs over datasets: drawing, scoring, selecting, exports, clusters."""

from bestofn.dataset.run import ErrorPolicy
from bestofn.dataset.select import select_dataset
from bestofn.dataset.summary import Summary

__all__ = ["ErrorPolicy", "Summary", "select_dataset"]
