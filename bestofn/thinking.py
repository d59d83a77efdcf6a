"""Thinking models: what stands in thinking tags is not the answer."""

import re

TAG = r"(?:think|thinking|reasoning)"
BLOCK = re.compile(rf"<{TAG}>(.*?)</{TAG}>", re.IGNORECASE | re.DOTALL)
OPENING = re.compile(rf"<{TAG}>", re.IGNORECASE)
CLOSING = re.compile(rf"</{TAG}>", re.IGNORECASE)


def split_thinking(text: str, *, opened: bool = False) -> tuple[str | None, str]:
    """Reasoning and answer of a model's output.

    Args:
        text: The output.
        opened: Whether the prompt ended in an opening tag, so that the output starts inside.

    Returns:
        The reasoning, None where there is none, and the answer, stripped if there was any. An
        unclosed tag makes everything behind it reasoning.
    """
    parts = []
    closing = CLOSING.search(text)
    first = OPENING.search(text)
    if closing and (first is None or closing.start() < first.start()):
        # The chat template opened the tag.
        parts.append(text[: closing.start()])
        text = text[closing.end() :]
    elif opened and closing is None:
        return text.strip(), ""
    parts += BLOCK.findall(text)
    text = BLOCK.sub("", text)
    unclosed = OPENING.search(text)
    if unclosed:
        parts.append(text[unclosed.end() :])
        text = text[: unclosed.start()]
    if not parts:
        return None, text
    return "\n\n".join(part.strip() for part in parts), text.strip()


def is_unclosed(text: str) -> bool:
    """Whether the output ends inside a thinking tag."""
    return OPENING.search(BLOCK.sub("", text)) is not None
