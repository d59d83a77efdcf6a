"""Thinking models: what stands in thinking tags is not the answer."""

import re

TAG = re.compile(r"<(/?)(?:think|thinking|reasoning)>", re.IGNORECASE)


def split_thinking(text: str, *, opened: bool = False) -> tuple[str | None, str]:
    """Reasoning and answer of a model's output, in one pass over its tags.

    A closing tag that nothing opened (the chat template did) makes everything before it reasoning;
    an opening tag that is never closed makes everything behind it reasoning.

    Args:
        text: The output.
        opened: Whether the prompt ended in an opening tag, so that the output starts inside.

    Returns:
        The reasoning, blocks joined by an empty line, None where there is none; and the answer,
        stripped if there was any reasoning, else the text as it is.
    """
    reasoning, answer, _ = _split(text, opened)
    if reasoning is None:
        return None, text
    return "\n\n".join(filter(None, map(str.strip, reasoning))), "".join(answer).strip()


def is_unclosed(text: str, *, opened: bool = False) -> bool:
    """Whether the output ends inside its reasoning."""
    return _split(text, opened)[2]


def ends_in_opening(prompt: str) -> bool:
    """Whether a prompt ends in an opening tag, so that the answer to it starts with reasoning."""
    tags = list(TAG.finditer(prompt.rstrip()))
    return bool(tags) and tags[-1].end() == len(prompt.rstrip()) and not tags[-1][1]


def _split(text: str, opened: bool) -> tuple[list[str] | None, list[str], bool]:
    """Pieces of reasoning (None if there is no tag), pieces of answer, whether it ends inside."""
    reasoning: list[str] = []
    answer: list[str] = []
    inside, start = opened, 0
    for tag in TAG.finditer(text):
        piece, start = text[start : tag.start()], tag.end()
        if inside:
            reasoning.append(piece)
        elif tag[1]:
            # Nothing opened this block: what looked like the answer so far was reasoning.
            reasoning += [*answer, piece]
            answer = []
        else:
            answer.append(piece)
        inside = not tag[1]
    (reasoning if inside else answer).append(text[start:])
    return (reasoning if start or opened else None), answer, inside
