"""Prompts: what may be given for one, its messages, and values as rows and files can hold them."""

from bestofn.prompts.base import (
    PromptLike,
    as_prompt,
    candidate_seed,
    comparable,
    content_key,
    conversation,
    folded,
    random_for,
    system_message,
    user_message,
)
from bestofn.prompts.messages import (
    answer_text,
    as_given,
    as_message,
    as_turns,
    spoken,
    transcript,
    written,
)
from bestofn.prompts.values import clean, plain

__all__ = [
    "PromptLike",
    "answer_text",
    "as_given",
    "as_message",
    "as_prompt",
    "as_turns",
    "candidate_seed",
    "clean",
    "comparable",
    "content_key",
    "conversation",
    "folded",
    "plain",
    "random_for",
    "spoken",
    "system_message",
    "transcript",
    "user_message",
    "written",
]
