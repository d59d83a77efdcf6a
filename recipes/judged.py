"""A gold verdict by a judge: how much it prefers a response to the row's reference response.

    BESTOFN_JUDGE=vllm:MODEL bestofn score pool.jsonl --reward gold \\
        --verifier recipes.judged:AgainstReference

The judge reads instruction, reference (column `output`) and response in both orders and is asked
which is better; the preference is the probability of its answer, averaged over the two orders, so
that its taste for a place cancels.
"""

import os
from math import tanh

from bestofn import concurrency, load_engine
from bestofn.engines.base import Engine
from bestofn.errors import ConfigError
from bestofn.prompts import as_prompt, user_message
from bestofn.types import Prompt
from bestofn.verifiers.base import Verifier, reference

VARIABLE = "BESTOFN_JUDGE"
QUESTION = """Two assistants answered the same request. Decide which answer serves the one who \
asked better: it does what was asked, is right, and is no longer than it needs to be.

# Request
{request}

# Answer A
{first}

# Answer B
{second}

Which answer is better? Reply with the letter alone, A or B."""


class AgainstReference(Verifier):
    """Preference in [0, 1] of a judge for the response over the prompt's column.

    Args:
        engine: The judge; by default the one that BESTOFN_JUDGE names.
        column: Holds the reference response.

    Raises:
        ConfigError: no judge is named.
    """

    def __init__(self, engine: Engine | None = None, column: str = "output") -> None:
        spec = os.environ.get(VARIABLE)
        if engine is None and not spec:
            raise ConfigError(f"name the judge, such as {VARIABLE}=vllm:MODEL")
        self._spec = spec
        self._engine = engine
        self.column = column

    def __call__(self, prompt: Prompt, response: str) -> float:
        if self._engine is None:
            assert self._spec is not None
            self._engine = load_engine(self._spec)
        other = reference(prompt, self.column)
        request = user_message(prompt)
        return concurrency.run(self._preference(self._engine, request, response, other))

    async def _preference(self, judge: Engine, request: str, response: str, other: str) -> float:
        as_a = await _probability_of_a(judge, request, response, other)
        as_b = 1 - await _probability_of_a(judge, request, other, response)
        return (as_a + as_b) / 2


async def _probability_of_a(judge: Engine, request: str, first: str, second: str) -> float:
    """Of the answers A and B, how likely the judge's is A."""
    question = as_prompt(QUESTION.format(request=request, first=first, second=second))
    a, b = await concurrency.gather(*(judge.loglikelihood(question, letter) for letter in "AB"))
    # The logistic function of the difference, written so that it cannot overflow.
    return 0.5 * (1 + tanh((sum(a.token_logprobs) - sum(b.token_logprobs)) / 2))
