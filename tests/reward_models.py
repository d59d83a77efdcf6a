"""Small reward models: one with random numbers, one that is trained in some seconds."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch.nn.functional import logsigmoid
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from bestofn.engines.model_files import locate
from bestofn.tiny.world import Split, answer, draw, verify

STEPS = 120
PAIRS = 8
TOKENS = 48  # of a conversation, so that a step is quick
FROZEN = ("model.embed", *(f"model.layers.{layer}." for layer in range(3)))


def random_model(folder: Path, *, spread: float = 0.1, **config: Any) -> Path:
    """The embedded model with a head of random weights of this spread, and its tokenizer."""
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(
        locate("tiny"), **{"num_labels": 1, **config}
    )
    torch.nn.init.normal_(model.score.weight, std=spread)
    return saved(model, folder)


def saved(model: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(locate("tiny")).save_pretrained(folder)
    return folder


def trained_model(folder: Path) -> Path:
    """The embedded model's last layer and a head, trained on pairs by Bradley and Terry's loss."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(locate("tiny"))
    model = AutoModelForSequenceClassification.from_pretrained(locate("tiny"), num_labels=1)
    for name, weight in model.named_parameters():
        weight.requires_grad_(not name.startswith(FROZEN))
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=2e-3)
    stream = pairs("train", Random(0))
    for _ in range(STEPS):
        right, wrong = zip(*(next(stream) for _ in range(PAIRS)), strict=True)
        logits = model(**tokenised(tokenizer, [*right, *wrong])).logits[:, 0]
        loss = -logsigmoid(logits[:PAIRS] - logits[PAIRS:]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return saved(model.eval(), folder)


Conversation = tuple[str, str]


def pairs(split: Split, rng: Random) -> Iterator[tuple[Conversation, Conversation]]:
    """An instruction with a right response, and with one to another instruction."""
    tokenizer = AutoTokenizer.from_pretrained(locate("tiny"))
    while True:
        task, other = draw(rng, split), draw(rng, split)
        right, wrong = answer(task, rng), answer(other, rng)
        lengths = [len(tokenizer(task.instruction + text)["input_ids"]) for text in (right, wrong)]
        if max(lengths) <= TOKENS and not verify(task.instruction, wrong):
            yield (task.instruction, right), (task.instruction, wrong)


def tokenised(tokenizer: Any, conversations: Sequence[Conversation]) -> Any:
    roles = ("user", "assistant")
    return tokenizer.apply_chat_template(
        [
            [{"role": role, "content": text} for role, text in zip(roles, texts, strict=True)]
            for texts in conversations
        ],
        return_tensors="pt",
        return_dict=True,
        padding=True,
    )
