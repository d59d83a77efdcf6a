"""What a selection over a dataset is made of, as the command line's options give it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from bestofn.concurrency import Window
from bestofn.config import ChoiceConfig, DrawConfig, Flag, PromptsConfig, Section
from bestofn.dataset.run import ErrorPolicy
from bestofn.dataset.sources import SourceOptions
from bestofn.errors import ConfigError
from bestofn.generators import Generator
from bestofn.models import Engines
from bestofn.resuming import comparing, engine_files, input_of
from bestofn.rewards.base import load_reward, needs_engine, reward_identity
from bestofn.sampler import BestOfN
from bestofn.scoring import RewardModel
from bestofn.stopping import ExpectedGain
from bestofn.store import pool


class AskConfig(DrawConfig, ChoiceConfig):
    """One selection."""

    n: Annotated[int, Flag(("-n",))] = Field(default=8, ge=1)
    """Candidates to draw."""

    def check(self) -> None:
        """Tells what is wrong before anything is read or loaded.

        Raises:
            ConfigError: a setting makes no sense.
        """
        _ = self.chooses  # whose name and options are looked at
        for name, reason in self._idle():
            if name in self.model_fields_set:
                raise ConfigError(f"{name} does nothing {reason}; leave it out")
        self.sampling()

    def _idle(self) -> Iterator[tuple[str, str]]:
        """Fields that nobody looks at, and why."""
        if not needs_engine(self.reward):
            for name in ("reward_engine", "reward_engine_args", "reward_engine_options"):
                yield name, f"with {self.reward!r}, as no model scores"
        elif self.reward_engine is None:
            yield "reward_engine_args", "without --reward-engine"
        if self.reward != "gold":
            yield "verifier", f"with {self.reward!r}, only with 'gold'"

    @contextmanager
    def loaded(self) -> Iterator[BestOfN]:
        """What draws and selects, with its models in memory.

        Raises:
            ConfigError: a setting makes no sense.
            EngineError: a model cannot be loaded.
        """
        chooses = self.chooses
        scorer = self.scorer(self) if needs_engine(self.reward) else None
        with Engines() as engines:
            generator, judges = engines.drawing(self, *filter(None, [scorer]))
            reward = load_reward(
                chooses.reward,
                engine=judges[0] if judges else None,
                verifier=self.verifier,
                **chooses.options,
            )
            yield self._best(generator, reward)

    def _best(self, generator: Generator, reward: RewardModel) -> BestOfN:
        return BestOfN(generator, reward, n=self.n)


class SelectConfig(PromptsConfig, AskConfig):
    """Selections over a dataset."""

    shard: tuple[int, int] | None = None
    """I/K: only the I-th of K parts of the prompts, so that K machines share a dataset."""
    n: Annotated[int, Flag(("-n",))] = Field(default=16, ge=1)
    """Candidates to draw for each prompt."""
    adaptive: float | None = Field(default=None, ge=0)
    """Draw in rounds and end a prompt when its next candidate is expected to gain no more than this
    in units of the reward; 0 ends it at the reward's ceiling alone. N is then the most."""
    adaptive_prior: str | None = None
    """A pool file of other prompts whose scores say what to expect; flip does without."""
    adaptive_weight: float = Field(default=1.0, gt=0)
    """How many candidates those scores count for."""
    round_size: int = Field(default=4, ge=1)
    """Candidates that are drawn at once, with --adaptive."""
    window: int | None = Field(default=None, ge=1)
    """Prompts in flight, by default enough for 512 candidates, fewer if prompts take long."""
    ordered: bool = False
    """Write rows in the order of the input, not as they finish."""
    on_bad_row: Literal["fail", "skip"] = "fail"
    """Whether a row of the input that cannot be used ends the run."""
    max_error_rate: float = Field(default=0.5, ge=0, le=1)
    """Fail when more than this share of the rows have no response: from 20 rows on at once, else
    at the end."""
    retry_errors: bool = False
    """Answer prompts again whose rows have an error."""

    @field_validator("shard", mode="before")
    @classmethod
    def _parts(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        place, slash, count = value.partition("/")
        if not (slash and place.isdecimal() and count.isdecimal()):
            raise ValueError(f"it is I/K, such as 1/4, not {value!r}")
        return int(place), int(count)

    @property
    def prompts_in_flight(self) -> int:
        """The window, or the most that it grows to."""
        at_once = self.n if self.adaptive is None else min(self.n, self.round_size)
        return self.window or max(1, Window.MOST // at_once)

    def source_options(self) -> SourceOptions:
        """How the input is read."""
        return SourceOptions(
            prompt_column=self.prompt_column,
            id_column=self.id_column,
            system_column=self.system_column,
            template=self.template,
            system=self.system,
            drop_last_assistant=self.drop_last_assistant,
            limit=self.limit,
            shard=self.shard,
        )

    def stopping(self) -> ExpectedGain | None:
        """When a prompt has enough candidates, None where all get the same number.

        Raises:
            ConfigError: the scores to expect are missing, or cannot be read.
        """
        if self.adaptive is None:
            return None
        prior = None
        if self.adaptive_prior is not None:
            prior = _scores(Path(self.adaptive_prior), self.chooses.label)
        elif self.reward != "flip":
            raise ConfigError(
                f"--adaptive with {self.reward!r} needs --adaptive-prior: a pool file that "
                "`bestofn score` has given its scores"
            )
        return ExpectedGain(self.adaptive, prior=prior, weight=self.adaptive_weight)

    def faults(self) -> ErrorPolicy:
        """What is done about what goes wrong."""
        return ErrorPolicy(self.on_bad_row, self.max_error_rate, self.retry_errors)

    def settings(self, best: BestOfN | None = None) -> dict[str, Any]:
        """What the rows depend on.

        Args:
            best: What draws and selects, once it is loaded: engines know more than their
                configuration, such as what a server serves.
        """
        free = {"limit", "window", "ordered", "on_bad_row", "max_error_rate", "retry_errors"}
        settings = self.model_dump(mode="json", exclude=free)
        return settings | {"prompts": input_of(self.prompts), "identity": self._identity(best)}

    def _identity(self, best: BestOfN | None) -> dict[str, Any]:
        chooses, loaded = self.chooses, getattr(best and best.reward, "engine", None)
        found = engine_files(self, getattr(best and best.generator, "engine", None))
        scorer = self.scorer(self) if needs_engine(self.reward) else None
        if scorer is not None and self.reward_engine is not None:
            found |= engine_files(scorer, loaded, "reward_")
        found["reward"] = reward_identity(
            chooses.reward,
            engine=loaded or (scorer or self).described(),
            verifier=self.verifier,
            **chooses.options,
        )
        stop = self.stopping()
        return found if stop is None else found | {"stop_rule": stop.identity()}

    def check(self) -> None:
        super().check()
        self.stopping()

    def _best(self, generator: Generator, reward: RewardModel) -> BestOfN:
        return BestOfN(
            generator,
            reward,
            n=self.n,
            window=self.window,
            stop=self.stopping(),
            round_size=self.round_size,
        )

    def _idle(self) -> Iterator[tuple[str, str]]:
        if self.adaptive is None:
            for name in ("adaptive_prior", "adaptive_weight", "round_size"):
                yield name, "without --adaptive"
        yield from super()._idle()


def _scores(path: Path, reward: str) -> list[float]:
    scores = [c.scores.get(reward) for row in pool.read(path) for c in row.candidates]
    if not any(scores):
        raise ConfigError(f"the pool {path} has no scores of {reward!r}; add them first")
    return [score.value for score in scores if score is not None]


REWARD = ("reward", "reward_options", "verifier")
STOP = ("adaptive", "adaptive_prior", "adaptive_weight")
same_selection = comparing(SelectConfig, described=(*REWARD, *STOP))
"""What differs between the settings of two selections."""


class ClusterConfig(Section):
    """Where replicas run."""

    cluster: str | None = None
    """Work with replicas on Ray: 'local' starts it on this machine, 'auto' joins the cluster that
    this machine belongs to, else its address, such as 'ray://head:10001'."""
    replicas: int = Field(default=1, ge=1)
    """Processes that each hold the models."""
    replica_gpus: float = Field(default=0, ge=0)
    """GPUs of each; as many as its tensor parallel size."""
    replica_cpus: float = Field(default=1, ge=0)
    """CPU cores of each."""

    @model_validator(mode="after")
    def _somewhere(self) -> "ClusterConfig":
        if self.cluster is None and self.model_fields_set:
            raise ValueError("replicas are those of a cluster; name it (--cluster local)")
        return self
