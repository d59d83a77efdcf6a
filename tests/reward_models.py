"""A small reward model with random numbers."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from bestofn.engines.model_files import locate


def random_model(folder: Path, *, spread: float = 0.1, **config: Any) -> Path:
    """The embedded model with a head of random weights of this spread, and its tokenizer."""
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(
        locate("tiny"), **{"num_labels": 1, **config}
    )
    torch.nn.init.normal_(model.score.weight, std=spread)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(locate("tiny")).save_pretrained(folder)
    return folder
