"""What a run is made of: one schema for recipes in YAML and for the command line's options.

Each field's text below it is what `--help` shows.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from bestofn.engines.base import Engine, SamplingParams, load_engine
from bestofn.engines.identity import Described
from bestofn.errors import ConfigError

S = TypeVar("S", bound="Section")


@dataclass(frozen=True, slots=True)
class Flag:
    """How a field is called on the command line, if not by its own name.

    Attributes:
        names: The option's names.
        whole: Whether each value of a list is taken as it is; else commas separate values.
    """

    names: tuple[str, ...]
    whole: bool = False


class Section(BaseModel):
    """Some fields that belong together; a field that is none of them is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class EngineConfig(Section):
    """A model."""

    engine: str = "tiny"
    """'tiny', 'vllm:MODEL', 'hf:MODEL' or 'openai:URL#MODEL'."""
    engine_args: Annotated[dict[str, Any], Flag(("--engine-arg",))] = Field(default={})
    """Arguments of the engine by name, such as max_model_len=4096."""
    engine_options: Annotated[dict[str, Any], Flag(("--engine-option",))] = Field(default={})
    """Options of a view on the engine: chat_template_kwargs, lora, guided."""

    def model(self) -> "EngineConfig":
        """What has to be loaded: no options of a view, nothing of a subclass."""
        return EngineConfig(engine=self.engine, engine_args=self.engine_args)

    def described(self) -> Described:
        """The engine, with nothing loaded."""
        return Described(self.engine, self.engine_args, self.engine_options)

    def view(self, engine: Engine) -> Engine:
        """The view on the loaded model that these options ask for."""
        return engine.with_options(**self.engine_options) if self.engine_options else engine

    def load(self) -> Engine:
        """The engine.

        Raises:
            ConfigError, EngineError: what `load_engine` and `with_options` raise.
        """
        return self.view(load_engine(self.engine, **self.engine_args))


class DrawConfig(EngineConfig):
    """How candidates are drawn."""

    system: str | None = None
    """A system prompt for prompts that have none."""
    temperature: float = 1.0
    """Of the candidates; 0 is greedy."""
    top_p: float = 1.0
    """Keep the smallest set of tokens with at least this probability."""
    top_k: int = 0
    """Keep the k most likely tokens; 0 keeps all."""
    min_p: float = 0.0
    """Keep tokens at least this share as likely as the most likely one."""
    repetition_penalty: float = 1.0
    """Of tokens that occurred; 1 does nothing."""
    max_tokens: int = 512
    """Of a candidate."""
    stop: Annotated[list[str], Flag(("--stop",), whole=True)] = Field(default=[])
    """End before any of these strings."""
    sampling_extra: dict[str, Any] = Field(default={})
    """Further sampling options, passed to the engine by name."""
    seed: int | None = None
    """Makes the run reproducible."""

    def sampling(self) -> SamplingParams:
        """The sampling parameters.

        Raises:
            ConfigError: a value is out of its range.
        """
        return SamplingParams(
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            min_p=self.min_p,
            repetition_penalty=self.repetition_penalty,
            max_tokens=self.max_tokens,
            stop=tuple(self.stop),
            extra=self.sampling_extra,
        )


class PromptsConfig(Section):
    """Where prompts come from."""

    prompts: str
    """A file or folder of JSONL, JSON arrays, Parquet, CSV or TSV (also .gz, .zst, .bz2, .xz), a
    folder of save_to_disk, '-' for JSON on stdin, 'hf:NAME[:CONFIG][:SPLIT]', 'hf://' and a file on
    the hub, or 'tiny:COUNT' for held-out instructions of the tiny world."""
    prompt_column: str = "prompt"
    """What to ask: a text, or a list of chat messages. Rows without 'prompt' may have 'messages',
    'conversations' or 'conversation'."""
    id_column: str | None = None
    """What names a prompt; without it a hash of its content does."""
    system_column: str | None = None
    """Holds a system prompt."""
    template: str | None = None
    """Makes the prompt of several columns, such as 'Solve: {problem}'."""
    drop_last_assistant: bool | None = None
    """Of a conversation that ends with an answer of the assistant, drop the answer; the column
    'dropped_answer' then has it."""
    limit: int | None = Field(default=None, ge=1)
    """Take only the first so many rows."""


class SampleConfig(PromptsConfig, DrawConfig):
    """A pool of candidates for each of many prompts."""

    shuffle: int | None = None
    """Shuffle the prompts with this seed before the limit."""
    m: Annotated[int, Flag(("-m",))] = 16
    """Candidates to draw for each prompt; take it well above the largest N of interest."""
    keep_tokens: bool = False
    """Keep token ids and log-probabilities; the length ablation needs them."""
    retry_errors: bool = False
    """Draw prompts again of which a candidate could not be drawn; their scores go."""
    window: int | None = Field(default=None, ge=1)
    """Prompts in flight, by default enough for 512 candidates."""


TAKEN = ("random", "oracle", "first", "longest", "shortest", "mean-logprob", "majority")


def _free_of_signs(name: str) -> str:
    if not name or set(name) & set("@:,"):
        raise ValueError(f"a name is not empty and has none of @ : , in it, unlike {name!r}")
    return name


Name = Annotated[str, AfterValidator(_free_of_signs)]


class RewardConfig(Section):
    """One reward."""

    reward: str
    """'flip', 'flip-likelihood', a judge ('pointwise', 'pairwise', 'listwise'), 'scalar', 'gold',
    or a baseline such as 'longest'."""
    name: Name | None = None
    """Names the scores, by default as the reward is called."""
    engine: str | None = None
    """The model that scores, if it is another one than for the other rewards."""
    engine_args: dict[str, Any] = Field(default={})
    """Arguments of that engine."""
    engine_options: dict[str, Any] = Field(default={})
    """Options of a view on the engine, such as guided: true."""
    options: dict[str, Any] = Field(default={})
    """Arguments of the reward, such as samples: 4."""

    @model_validator(mode="after")
    def _consistent(self) -> "RewardConfig":
        if self.name in TAKEN and self.name != self.reward:
            raise ValueError(f"the name {self.name!r} stands for something else in curves")
        if self.engine is None and self.engine_args:
            raise ValueError("engine_args are those of a reward's own engine; name it")
        if self.reward == "scalar" and "model" not in self.options:
            raise ValueError("'scalar' needs a reward model, as in scalar:MODEL or options: model")
        return self

    @field_validator("options")
    @classmethod
    def _keys_of_their_own(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in ("engine", "verifier", "name"):
            if name in value:
                raise ValueError(f"{name!r} has a key of its own")
        return value

    @property
    def label(self) -> str:
        return self.name or self.reward


def reward_fields(spec: str) -> dict[str, Any]:
    """The fields of a reward that is named in one word: 'scalar:MODEL' names its model as well."""
    reward, _, model = spec.partition(":")
    if reward == "scalar" and model:
        return {"reward": reward, "options": {"model": model}}
    return {"reward": spec}


def _names_as_rewards(value: Any) -> Any:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [reward_fields(item) if isinstance(item, str) else item for item in value]
    return value


def _differently_called(rewards: list[RewardConfig]) -> list[RewardConfig]:
    labels = [reward.label for reward in rewards]
    if twice := [label for label in labels if labels.count(label) > 1]:
        raise ValueError(f"two rewards are called {twice[0]!r}; give one of them a name")
    return rewards


Rewards = Annotated[
    list[RewardConfig],
    BeforeValidator(_names_as_rewards),
    AfterValidator(_differently_called),
    Flag(("--reward",)),
]


class RewardsConfig(Section):
    """Rewards, and the model that scores."""

    rewards: Rewards = Field(default=[])
    """Which ones: names, 'scalar:MODEL' for a reward model, or in YAML also mappings with reward,
    name, engine, options."""
    verifier: str | None = None
    """What the reward 'gold' asks: 'exact:COLUMN', 'regex:COLUMN', 'math[:COLUMN]', 'ifeval',
    'tiny' or 'package.module:function'."""
    reward_engine: str | None = None
    """The model that scores, if it is not the one that draws."""
    reward_engine_args: Annotated[dict[str, Any], Flag(("--reward-engine-arg",))] = Field(
        default={}
    )
    """Arguments of that engine."""


class ScoreConfig(RewardsConfig):
    """Scores for the candidates of a pool."""

    limits: list[int] = Field(default=[])
    """Score also the first so many tokens of each candidate, for the length ablation."""
    again: bool = False
    """Replace scores that are there under the same name, instead of keeping them."""

    @field_validator("limits")
    @classmethod
    def _ascending(cls, value: list[int]) -> list[int]:
        if any(limit < 1 for limit in value):
            raise ValueError("each limit must be at least 1")
        return sorted(set(value))


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
    weighted:SCORE; by default all scores of the pool and the baselines."""
    gold: str = "gold"
    """The score that says how good a candidate is."""
    ns: Annotated[list[int], Flag(("--ns", "-n"))] = Field(default=[])
    """Sizes N, by default powers of two up to the pool's size."""
    answer: str | None = None
    """What votes compare: the verifier whose answers count, such as 'math'; by default the text."""
    margin: float = Field(default=0.02, ge=0)
    """A choice from the first tokens is as good as one from the whole response if it loses less
    gold than this."""
    bad_rows: Literal["fail", "skip"] = "fail"
    """Whether a row that cannot be used ends the run, or is left out and named."""
    iid: bool = True
    """The candidates are independent draws from one model; if not, there is no KL bound."""

    @field_validator("ns")
    @classmethod
    def _ascending(cls, value: list[int]) -> list[int]:
        if any(n < 1 for n in value):
            raise ValueError("each n must be at least 1")
        return sorted(set(value))


class ReportConfig(Section):
    """The page."""

    title: str = ""
    """Of pages and pictures."""
    embed: int = Field(default=500, ge=1, le=500)
    """Prompts that the page shows candidate by candidate."""


class AuditConfig(PromptsConfig, EngineConfig, RewardsConfig):
    """Attacks on rewards."""

    prompts: str = Field("tiny:100", description=PromptsConfig.model_fields["prompts"].description)
    rewards: Rewards = Field(
        default=[RewardConfig(reward="flip"), RewardConfig(reward="flip-likelihood")]
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
    window: int | None = Field(default=None, ge=1)
    """Prompts in flight, by default enough for 512 responses."""


class ModelConfig(EngineConfig):
    """One of several models."""

    name: Name
    """Tells its scores from those of the others."""


class RewardBenchConfig(BootstrapConfig, EngineConfig):
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
    rewards: Rewards = Field(default=[])
    """Which ones: names, 'scalar:MODEL' for a reward model, or in YAML also mappings with reward,
    name, engine, options."""
    title: str = ""
    """Of pages and pictures."""

    @model_validator(mode="after")
    def _consistent(self) -> "RewardBenchConfig":
        if not self.rewards:
            raise ValueError("name at least one reward, such as 'flip'")
        if any("gold" in (reward.reward, reward.label) for reward in self.rewards):
            raise ValueError("'gold' stands for what the items say of their responses")
        names = [model.name for model in self.models]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"two models are called {twice[0]!r}")
        if self.models:
            own = [reward.label for reward in self.rewards if reward.engine is not None]
            if own or self.model_fields_set & EngineConfig.model_fields.keys():
                raise ValueError("`models` leaves no place for another engine; list it with them")
        return self

    @property
    def scorers(self) -> Sequence[EngineConfig]:
        """The models, or the one."""
        return self.models or [self]


def checked(kind: type[S], fields: Mapping[str, Any], where: str) -> S:
    """The section with these fields.

    Raises:
        ConfigError: one of them is wrong; the message starts with `where`.
    """
    try:
        return kind.model_validate(dict(fields))
    except ValidationError as error:
        raise ConfigError(f"{where}: {_sentence(kind, error)}") from None


def _sentence(kind: type[Section], error: ValidationError) -> str:
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    key = ".".join(path)
    if first["type"] == "missing":
        return f"the key {key!r} is missing"
    if first["type"] != "extra_forbidden":
        said = first["msg"].removeprefix("Value error, ")
        return f"the key {key!r} is wrong: {said}" if key else said
    known = _fields_at(kind, path[:-1])
    near = difflib.get_close_matches(path[-1], known, 1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
    return f"unknown key {key!r}; {hint}"


def _fields_at(kind: type[Section], path: Sequence[str]) -> list[str]:
    """The names of a section's fields, the section being found by the keys that lead to it."""
    for part in path:
        if part in kind.model_fields:
            annotation = kind.model_fields[part].annotation
            inner = getattr(annotation, "__args__", (annotation,))[0]
            if isinstance(inner, type) and issubclass(inner, Section):
                kind = inner
    return list(kind.model_fields)
