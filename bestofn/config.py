"""What a run is made of: one schema for recipes in YAML and for the command line's options.

Each field's text below it is what `--help` shows.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from bestofn.engines.base import Engine, SamplingParams, load_engine
from bestofn.engines.identity import Described, same_engine
from bestofn.errors import ConfigError
from bestofn.generators import GenerateFunction, Generator, own_generator
from bestofn.rewards.base import default_name, share
from bestofn.section import NO_ENGINE as NO_ENGINE
from bestofn.section import OPTIONS as OPTIONS
from bestofn.section import Flag as Flag
from bestofn.section import Section as Section
from bestofn.section import checked as checked


class OptionalEngineConfig(Section):
    """A model, where one is needed."""

    engine: str | None = None
    """'vllm:MODEL', 'hf:MODEL', 'openai:URL#MODEL', 'package.module:Name', or 'tiny', the embedded
    toy model."""
    engine_args: Annotated[dict[str, Any], Flag(("--engine-arg",))] = Field(default={})
    """Arguments of the engine by name, such as max_model_len=4096."""
    engine_options: Annotated[dict[str, Any], Flag(("--engine-option",))] = Field(default={})
    """Options that cost no other model: 'chat_template_kwargs={enable_thinking: false}', lora=PATH,
    guided=true."""

    def named(self) -> "EngineConfig | None":
        """The model, None where there is no name."""
        if self.engine is None:
            return None
        return EngineConfig(
            engine=self.engine, engine_args=self.engine_args, engine_options=self.engine_options
        )


class EngineConfig(OptionalEngineConfig):
    """A model."""

    engine: str
    """'vllm:MODEL', 'hf:MODEL', 'openai:URL#MODEL', 'package.module:Name', or 'tiny', the embedded
    toy model."""

    def model(self) -> "EngineConfig":
        """What has to be loaded: no options of a view, nothing of a subclass."""
        return EngineConfig(engine=self.engine, engine_args=self.engine_args)

    def described(self) -> Described:
        """The engine, with nothing loaded."""
        return Described(self.engine, self.engine_args, self.engine_options)

    def is_same(self, other: "EngineConfig") -> bool:
        """Whether both load the same model with the same arguments, however it is spelt."""
        same = same_engine(self.engine) == same_engine(other.engine)
        return same and self.engine_args == other.engine_args

    def sharing(self, other: "EngineConfig | None") -> "EngineConfig":
        """With the arguments of another one that names the same model, if it has none itself."""
        if (
            other is None
            or self.engine_args
            or same_engine(self.engine) != same_engine(other.engine)
        ):
            return self
        return self.model_copy(update={"engine_args": other.engine_args})

    def view(self, engine: Engine) -> Engine:
        """The view on the loaded model that these options ask for.

        Raises:
            ConfigError: an option or its value makes no sense.
        """
        if not self.engine_options:
            return engine
        try:
            return engine.with_options(**self.engine_options)
        except (TypeError, ValueError) as error:
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(
                f"engine {self.engine!r} does not take the options {self.engine_options}: {error}"
            ) from error

    def load(self) -> Engine:
        """The engine.

        Raises:
            ConfigError, EngineError: what `load_engine` and `with_options` raise.
        """
        return self.view(load_engine(self.engine, **self.engine_args))


class DrawConfig(EngineConfig):
    """How candidates are drawn."""

    system: Annotated[str | None, Flag(text=True)] = None
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
    stop: Annotated[list[str], Flag(whole=True, text=True)] = Field(default=[])
    """End before any of these strings."""
    sampling_extra: dict[str, Any] = Field(default={})
    """Further sampling options, passed to the engine by name."""
    seed: int | None = None
    """Makes the run reproducible."""

    def own_generator(self) -> Generator | GenerateFunction | None:
        """The user's own generator, where `engine` names one, and None where it names a model.

        Raises:
            ConfigError: it cannot be loaded, or settings of a model are given with it.
        """
        own = own_generator(self.engine, self.engine_args)
        kept = {"engine", "engine_args", "system"}
        idle = [name for name in DrawConfig.model_fields if name in self.model_fields_set - kept]
        if own is not None and idle:
            raise ConfigError(
                f"{idle[0]} does nothing with the generator {self.engine!r}, which samples as it "
                "likes; leave it out"
            )
        return own

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
    template: Annotated[str | None, Flag(text=True)] = None
    """Makes the prompt of several columns, such as 'Solve: {problem}'."""
    drop_last_assistant: bool = False
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
    """Prompts in flight, by default enough for 512 candidates, fewer if prompts take long."""


TAKEN = ("random", "oracle", "first", "longest", "shortest", "mean-logprob", "majority")


def _free_of_signs(name: str) -> str:
    if not name or set(name) & set("@:,"):
        raise ValueError(f"a name is not empty and has none of @ : , in it, unlike {name!r}")
    return name


Name = Annotated[str, AfterValidator(_free_of_signs)]


class RewardConfig(OptionalEngineConfig):
    """One reward."""

    reward: str
    """'flip', 'flip-likelihood', a judge ('pointwise', 'pairwise', 'listwise'), 'scalar', 'gold',
    a baseline such as 'longest', or 'package.module:Name'."""
    name: Name | None = None
    """Names the scores, by default as the reward is called."""
    engine: str | None = None
    """The model that scores, if it is another one than for the other rewards."""
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
        return self.name or default_name(self.reward)


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


RewardOptions = Annotated[dict[str, Any], Flag(("--reward-option",), dotted=True)]


def _with_options(rewards: list[RewardConfig], given: Mapping[str, Any]) -> list[RewardConfig]:
    """The rewards with further options; see `bestofn.rewards.base.share`."""
    shares = share(given, {reward.label: reward.reward for reward in rewards})
    found = []
    for reward in rewards:
        options = reward.options | shares[reward.label]
        fields = reward.model_dump(exclude_unset=True) | {"options": options}
        found.append(RewardConfig.model_validate(fields))
    return found


class ScorerConfig(Section):
    """The model that scores, and what says which answers are right."""

    verifier: str | None = None
    """What the reward 'gold' asks: 'exact:COLUMN', 'regex:COLUMN', 'math[:COLUMN]', 'ifeval',
    'tiny' or 'package.module:Name'."""
    reward_engine: str | None = None
    """The model that scores, if it is not the one that draws. The same model without arguments of
    its own is not loaded twice."""
    reward_engine_args: Annotated[dict[str, Any], Flag(("--reward-engine-arg",))] = Field(
        default={}
    )
    """Arguments of that engine."""
    reward_engine_options: Annotated[dict[str, Any], Flag(("--reward-engine-option",))] = Field(
        default={}
    )
    """Options of the model that scores, in the place of --engine-option if it is the one that
    draws, such as 'chat_template_kwargs={enable_thinking: false}' or guided=true."""

    def scorer(self, drawn_by: EngineConfig | None) -> EngineConfig | None:
        """The model that scores: the one that is named, else the one that draws."""
        if self.reward_engine is not None:
            named = EngineConfig(
                engine=self.reward_engine,
                engine_args=self.reward_engine_args,
                engine_options=self.reward_engine_options,
            )
            return named.sharing(drawn_by)
        if drawn_by is None or not self.reward_engine_options:
            return drawn_by
        return drawn_by.model_copy(update={"engine_options": self.reward_engine_options})


class ChoiceConfig(ScorerConfig):
    """The reward that chooses among candidates."""

    reward: str = "flip"
    """'flip', 'flip-likelihood', a judge ('pointwise', 'pairwise', 'listwise'), 'scalar:MODEL',
    'gold', a baseline such as 'longest', or 'package.module:Name'."""
    reward_options: RewardOptions = Field(default={})
    """Arguments of the reward by name, such as samples=4."""

    @model_validator(mode="before")
    @classmethod
    def _reward_in_one_word(cls, fields: dict[str, Any]) -> dict[str, Any]:
        named = reward_fields(str(fields.get("reward", "")))
        if "options" not in named:
            return fields
        options = named["options"] | fields.get("reward_options", {})
        return {**fields, "reward": named["reward"], "reward_options": options}

    @property
    def chooses(self) -> RewardConfig:
        """The reward with its options.

        Raises:
            ConfigError: there is no such reward, or it does not take them.
        """
        options = share(self.reward_options, {self.reward: self.reward})[self.reward]
        return checked(RewardConfig, {"reward": self.reward, "options": options}, OPTIONS)


class RewardsConfig(Section):
    """Some rewards."""

    reward_options: RewardOptions = Field(default={}, exclude=True)
    """Arguments of rewards, such as samples=4 for each that takes it, or flip.samples=4 for one."""
    rewards: Rewards = Field(default=[], validate_default=True)
    """Which ones: names, 'scalar:MODEL' for a reward model, or in YAML also mappings with reward,
    name, engine, options."""

    @field_validator("rewards")
    @classmethod
    def _options_for_all(cls, value: list[RewardConfig], info: ValidationInfo) -> Any:
        given = info.data.get("reward_options")
        return _with_options(value, given) if given else value


class ScoreConfig(RewardsConfig, ScorerConfig):
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


class AuditConfig(PromptsConfig, OptionalEngineConfig, RewardsConfig, ScorerConfig):
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
    window: int | None = Field(default=None, ge=1)
    """Prompts in flight, by default enough for 512 candidates, fewer if prompts take long."""


class ModelConfig(EngineConfig):
    """One of several models."""

    name: Name
    """Tells its scores from those of the others."""


class RewardBenchConfig(BootstrapConfig, OptionalEngineConfig, RewardsConfig):
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
            if own or self.model_fields_set & OptionalEngineConfig.model_fields.keys():
                raise ValueError("`models` leaves no place for another engine; list it with them")
        return self

    @property
    def scorers(self) -> Sequence[OptionalEngineConfig]:
        """The models, or the one."""
        return self.models or [self]
