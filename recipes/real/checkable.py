"""The verifier of checkable.jsonl: rules of IFEval where a row has any, else its answer."""

from bestofn.types import Prompt
from bestofn.verifiers import load_verifier

RULES, NUMBER = load_verifier("ifeval"), load_verifier("math")


def right(prompt: Prompt, response: str) -> bool | float:
    return (NUMBER if "answer" in prompt.columns else RULES)(prompt, response)
