"""A reward as TRL's trainers want one: a function from prompts and completions to numbers."""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from math import isnan
from typing import Any

from bestofn import concurrency
from bestofn.errors import ConfigError
from bestofn.prompts import as_message, as_prompt, clean, plain
from bestofn.scoring import RewardModel, add_scores
from bestofn.thinking import ends_in_opening, split_thinking
from bestofn.types import Candidate, Pool, Prompt, Score

Turns = str | Sequence[Mapping[str, Any]]
"""A text or chat messages, as rows of TRL's data sets hold prompts and completions."""
RewardFunction = Callable[..., list[float | None]]

NOT_COLUMNS = ("completion_ids", "environments")  # lists that the trainer passes beside the columns
REASONING = ("reasoning_content", "thinking", "reasoning")  # where chat templates put it


def flip_reward_func(reward: RewardModel, *, opened: bool = False) -> RewardFunction:
    """A reward as one of the `reward_funcs` of TRL's `GRPOTrainer`; any reward, not FLIP alone.

    The function returned is called `(prompts, completions, **columns)`, by the trainer or by hand.
    Both are texts or lists of chat messages; other columns are `Prompt.columns`, for verifiers. It
    returns a score for each completion, None where scoring failed or a form is another one, such as
    a completion that ends with a tool call; TRL learns nothing from those. Equal prompts that
    follow each other are a group: of equal responses in it one is scored, and a setwise reward is
    given all of it.

    Where the trainer passes `log_metric` and `log_extra`, they get, under the reward's name, the
    shares `failure_rate` (of completions without a score) and `tie_rate` (of pairs within groups
    that have the same score), `tokens` (that the scoring model computed for a completion), and for
    the table of completions `reason` (why there is no score) and `inferred` (instructions).

    Args:
        reward: Scores completions; its name is the function's.
        opened: Whether the chat template ends a prompt inside the reasoning and TRL does not split
            it off, so that a completion that never closes it has no answer. Prompts that are texts
            show it themselves.

    Example:
        >>> engine = load_engine("vllm:Qwen/Qwen3-4B-Instruct-2507")
        >>> reward_func = flip_reward_func(FLIPReward(engine))
        >>> GRPOTrainer(model, reward_funcs=reward_func, train_dataset=prompts).train()
    """

    def reward_func(
        prompts: Sequence[Turns],
        completions: Sequence[Turns],
        *,
        log_metric: Callable[[str, float], None] | None = None,
        log_extra: Callable[[str, list[Any]], None] | None = None,
        **columns: Any,
    ) -> list[float | None]:
        groups = _groups(prompts, completions, columns, opened)
        concurrency.run(_score(groups, reward))
        scores = [[candidate.scores[reward.name] for candidate in g.candidates] for g in groups]
        flat = [score for group in scores for score in group]
        if log_metric is not None and flat:
            for name, value in _metrics(scores).items():
                log_metric(f"{reward.name}/{name}", value)
        if log_extra is not None:
            log_extra(f"{reward.name}/reason", [score.reason or "" for score in flat])
            log_extra(f"{reward.name}/inferred", ["\n".join(score.inferred) for score in flat])
        return [None if isnan(score.value) else score.value for score in flat]

    reward_func.__name__ = reward.name
    return reward_func


async def _score(groups: Sequence[Pool], reward: RewardModel) -> None:
    """Scores what can be scored of each group; the rest has its error as the reason."""
    usable = []
    for group in groups:
        for candidate in group.candidates:
            candidate.scores[reward.name] = Score(reason=candidate.error)
        drawn = [candidate for candidate in group.candidates if candidate.error is None]
        usable.append(add_scores(group.prompt, drawn, reward))
    await concurrency.gather(*usable)


def _groups(
    prompts: Sequence[Turns],
    completions: Sequence[Turns],
    columns: Mapping[str, Any],
    opened: bool,
) -> list[Pool]:
    """The completions of equal prompts that follow each other, as candidates of one prompt.

    A candidate that cannot be scored has an error.

    Raises:
        ConfigError: the numbers differ.
    """
    if len(prompts) != len(completions):
        raise ConfigError(f"{len(prompts)} prompts but {len(completions)} completions")
    lists = {n: v for n, v in columns.items() if isinstance(v, list) and n not in NOT_COLUMNS}
    groups: list[Pool] = []
    for row, (asked, completion) in enumerate(zip(prompts, completions, strict=True)):
        prompt, what = Prompt(()), "prompt"
        try:
            own = {name: plain(values[row]) for name, values in lists.items()}
            prompt, what = as_prompt(asked, columns=own), "completion"
            candidate = _candidate(asked, completion, opened)
        except (ConfigError, RecursionError) as error:
            reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
            candidate = Candidate(0, "", finish_reason="error", error=f"{what}: {reason}")
        # Columns count: the same question may come with another reference answer.
        if not groups or (prompt, prompt.columns) != (groups[-1].prompt, groups[-1].prompt.columns):
            groups.append(Pool(prompt, []))
        candidate.index = len(groups[-1].candidates)
        groups[-1].candidates.append(candidate)
    return groups


def _candidate(prompt: Turns, completion: Turns, opened: bool) -> Candidate:
    """One completion, its reasoning split off. Of several messages the last is the response.

    Raises:
        ConfigError: it has no response, or another form.
    """
    if isinstance(completion, str):
        opened = opened or (isinstance(prompt, str) and ends_in_opening(prompt))
        reasoning, text = split_thinking(clean(completion), opened=opened)
        return Candidate(0, text, reasoning=reasoning)
    message = completion[-1] if isinstance(completion, Sequence) and completion else None
    if not isinstance(message, Mapping):
        raise ConfigError(f"a completion is a text or chat messages, not {completion!r}")
    apart = next((clean(str(message[name])) for name in REASONING if message.get(name)), None)
    if apart is not None and message.get("content", "") is None:
        return Candidate(0, "", reasoning=apart)  # it was cut off while it was thinking
    turn = as_message({"role": "assistant", **message})
    if turn.role != "assistant":
        raise ConfigError(f"it ends with a message of the role {turn.role!r}, not the assistant's")
    if turn.extra and not turn.content.strip():
        raise ConfigError("it ends with a call of a tool, without an answer")
    # What the chat template has split has no tags left.
    content = clean(turn.content)
    reasoning, text = (apart, content) if apart else split_thinking(content, opened=opened)
    return Candidate(0, text, reasoning=reasoning)


def _metrics(groups: Sequence[Sequence[Score]]) -> dict[str, float]:
    scores = [score for group in groups for score in group]
    pairs = [a.value == b.value for group in groups for a, b in combinations(group, 2)]
    return {
        "failure_rate": sum(isnan(score.value) for score in scores) / len(scores),
        "tie_rate": sum(pairs) / len(pairs) if pairs else 0.0,
        "tokens": sum(score.usage.computed_tokens for score in scores) / len(scores),
    }
