"""The configuration of curves, reports, audits and RewardBench; see `bestofn.config.commands`."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, model_validator

from bestofn.config.commands import InFlight, PromptsConfig, ScorerConfig, Sizes, Title
from bestofn.config.parts import (
    SPEC,
    EngineConfig,
    Name,
    RewardConfig,
    Rewards,
    RewardsConfig,
    check_distinct,
)
from bestofn.section import Flag, Section

TokenKind = Literal["input", "cached_input", "output"]
Price = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, lt=1)]


class BootstrapConfig(Section):
    """Intervals by resampling."""

    resamples: int = Field(default=2000, ge=100)
    """Of the bootstrap."""
    level: float = Field(default=0.95, gt=0, lt=1)
    """Of the intervals."""
    bootstrap_seed: int = 0
    """Of the resampling, and of votes that have to be simulated."""


class CurveConfig(BootstrapConfig):
    """Curves from a scored pool."""

    proxies: Annotated[list[str], Flag(("--proxy",))] = Field(default=[])
    """What selects: names of scores, or random, oracle, longest, shortest, mean-logprob, majority,
    mbr, SELECTOR:SCORE such as weighted:flip or soft=0.2:flip, or a rule that ends drawing early,
    adaptive=COST:SCORE and reject=TOKENS/TOKENS/KEEP:SCORE; by default all scores of the pool and
    the baselines."""
    gold: str = "gold"
    """The score that says how good a candidate is."""
    ns: Annotated[Sizes, Flag(("--ns", "-n"))] = Field(default=[])
    """Sizes N, by default powers of two up to the pool's size."""
    answer: str | None = None
    """What votes compare: the verifier whose answers count, such as 'math'; by default the text."""
    margin: float = Field(default=0.02, ge=0)
    """A choice that costs less is as good if it loses less gold than this, such as one from the
    first tokens."""
    prices: Annotated[dict[TokenKind, Price], Flag(("--price",))] = Field(default={})
    """Of a million tokens: input=0.1, cached_input=0.02, output=0.4."""
    bad_rows: Literal["fail", "skip"] = "fail"
    """Whether a row that cannot be used ends the run, or is left out and named."""
    iid: bool = True
    """The candidates are independent draws from one model; if not, there is no KL bound."""


class AdviseConfig(BootstrapConfig):
    """Early rejection from a pool whose beginnings are scored."""

    reward: str | None = None
    """The score that rejects and chooses, by default the only one that beginnings have."""
    gold: str | None = None
    """The score that says what is lost, by default 'gold', without it in the pool the reward."""
    margin: float = Field(default=0.02, ge=0)
    """The most that may be lost, in units of that score."""
    n: Annotated[int | None, Flag(("-n",)), Field(ge=1)] = None
    """Candidates that will be drawn, by default half of the pool's, so that many draws of so many
    can be looked at."""
    keeps: Annotated[list[Share], Flag(("--keep",))] = Field(default=[0.25, 0.5, 0.75])
    """Shares of the candidates to try."""


class ReportConfig(Section):
    """The page."""

    title: Title = ""
    embed: int = Field(default=500, ge=1, le=500)
    """Prompts that the page shows candidate by candidate."""


class AuditConfig(PromptsConfig, EngineConfig, RewardsConfig, ScorerConfig):
    """Attacks on rewards."""

    rewards: Rewards = Field(
        default=[RewardConfig(reward="flip"), RewardConfig(reward="flip-likelihood")],
        validate_default=True,
    )
    """What is attacked; a reward with a copy guard once with the guard on 'flag' and once with it
    on 'strip'."""
    attacks: Annotated[list[str], Flag(("--attack",))] = Field(default=[])
    """Only these, by default all."""
    honest_column: str | None = None
    """Holds an honest response to each prompt. Without it, instructions of the tiny world get a
    right answer, and all others the greedy response of the engine."""
    max_tokens: int = Field(default=512, ge=1)
    """Of a response that the engine writes."""
    seed: int = 0
    """Of what attacks leave to chance, and of the order in which a reward that compares sees the
    two responses."""
    window: InFlight = None


class ModelConfig(EngineConfig):
    """One of several models."""

    engine: str = Field(description=SPEC)
    name: Name
    """Tells its scores from those of the others."""


class RewardBenchConfig(BootstrapConfig, EngineConfig, RewardsConfig):
    """Best-of-4 accuracy of rewards on items with known right responses."""

    data: str = "hf:allenai/reward-bench-2:default:test"
    """Where items come from: a file or folder of JSONL or Parquet, '-', 'hf:NAME[:CONFIG][:SPLIT]',
    each with id, prompt, chosen, rejected and subset, or 'tiny:COUNT' for so many items a subset of
    the tiny world."""
    subsets: Annotated[list[str], Flag(("--subset",))] = Field(default=[])
    """Which ones; by default all but Safety and Ties."""
    limit_per_subset: int | None = Field(default=None, ge=1)
    """Take only the first so many items of each subset."""
    seeds: int = Field(default=1, ge=1)
    """How often to score, each time with another order of the candidates and another seed."""
    models: list[ModelConfig] = Field(default=[])
    """Several models in the place of one; each reward is scored with each."""
    title: Title = ""

    @model_validator(mode="after")
    def _consistent(self) -> "RewardBenchConfig":
        if not self.rewards:
            raise ValueError("name at least one reward, such as 'flip'")
        if any("gold" in (reward.reward, reward.label) for reward in self.rewards):
            raise ValueError("'gold' means what the items say of their responses")
        check_distinct("models", [model.name for model in self.models])
        own = [reward for reward in self.rewards if reward.engine is not None]
        if self.models and (own or self.model_fields_set & EngineConfig.model_fields.keys()):
            raise ValueError("`models` leaves no place for another engine; list it with them")
        return self

    @property
    def scorers(self) -> Sequence[EngineConfig]:
        """The models, or the one."""
        return self.models or [self]
