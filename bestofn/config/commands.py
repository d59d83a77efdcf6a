"""The configuration of each command: one schema for sections of recipes and for options.

Each field's description is what `--help` shows.
"""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from bestofn.config.parts import (
    SPEC,
    EngineConfig,
    RewardConfig,
    RewardOptions,
    RewardsConfig,
    reward_fields,
)
from bestofn.engines.base import SamplingParams
from bestofn.prompts import plain
from bestofn.rewards.base import share
from bestofn.schemas import check_schema
from bestofn.section import OPTIONS, Flag, Section, checked

InFlight = Annotated[
    int | None,
    Field(
        ge=1,
        description="Prompts in flight, by default enough for 512 candidates, fewer if prompts "
        "take long.",
    ),
]
Title = Annotated[str, Field(description="Of pages and pictures.")]


def _ascending(sizes: list[int]) -> list[int]:
    if any(size < 1 for size in sizes):
        raise ValueError("each must be at least 1")
    return sorted(set(sizes))


def _as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int) else value


def _schema(value: Any) -> Any:
    """A JSON schema as text: of a mapping, a text, or the file of that name."""
    if isinstance(value, str) and not value.lstrip().startswith("{"):
        try:
            value = Path(value).read_text("utf-8")
        except (OSError, ValueError) as error:
            raise ValueError(f"the file {value!r} cannot be read: {error}") from None
    try:
        schema = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is not JSON: {error}") from None
    check_schema(schema, "the schema")
    return json.dumps(plain(schema))  # in the order in which it is to be written


Sizes = Annotated[list[int], AfterValidator(_ascending)]


class DrawConfig(EngineConfig):
    """How candidates are drawn."""

    engine: str = Field(description=SPEC)
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
    stop: Annotated[list[str], Flag(text=True)] = Field(default=[])
    """End before any of these strings."""
    json_schema: Annotated[str, BeforeValidator(_schema)] | None = None
    """A file with a JSON schema that answers have to fit, in YAML also the schema itself. Engines
    that can, hold them to it; an answer that does not fit is a candidate that failed."""
    tool_choice: str = "auto"
    """Of prompts with tools: 'auto', 'required', or the name of the tool that has to be called."""
    parallel_tool_calls: bool = True
    """Whether an answer may call several tools."""
    confidence: Annotated[str, BeforeValidator(_as_text)] | None = None
    """Keep how certain the model was of each token, read from so many of the likeliest, such as 20,
    or 'all'; rewards such as self-certainty need it."""
    sampling_extra: dict[str, Any] = Field(default={})
    """Further sampling options, passed to the engine by name."""
    seed: int | None = None
    """Makes the run reproducible."""

    def sampling(self) -> SamplingParams:
        """The sampling parameters.

        Raises:
            ConfigError: a value is out of its range.
        """
        shared = DrawConfig.model_fields.keys() & SamplingParams.__dataclass_fields__.keys()
        values = {name: getattr(self, name) for name in shared} | {"stop": tuple(self.stop)}
        values["json_schema"] = None if self.json_schema is None else json.loads(self.json_schema)
        if self.confidence is not None and self.confidence.isdecimal():
            values["confidence"] = int(self.confidence)
        return SamplingParams(**values, extra=self.sampling_extra)


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
    tools_column: str | None = None
    """Holds the functions that an answer may call, as OpenAI's API declares them."""
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
    window: InFlight = None


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

    @model_validator(mode="after")
    def _arguments_of_scorer(self) -> "ScorerConfig":
        if self.reward_engine is None and self.reward_engine_args:
            raise ValueError("reward_engine_args belong to a reward engine; name it")
        return self

    def scorer(self, drawn_by: EngineConfig | None) -> EngineConfig | None:
        """The model that scores: the one that is named, else the one that draws."""
        options = self.reward_engine_options
        if self.reward_engine is not None:
            own = EngineConfig(engine=self.reward_engine, engine_args=self.reward_engine_args)
            return own.model_copy(update={"engine_options": options}).sharing(drawn_by)
        if drawn_by is None or not options:
            return drawn_by
        return drawn_by.model_copy(update={"engine_options": options})


class ScoreConfig(RewardsConfig, ScorerConfig):
    """Scores for the candidates of a pool."""

    limits: Sizes = Field(default=[])
    """Score also the first so many tokens of each candidate, for the length ablation."""
    again: bool = False
    """Replace scores that are there under the same name, instead of keeping them."""


# --- one selection, and those of a dataset --------------------------------------------------------

Count = Annotated[int, Flag(("-n",)), Field(ge=1, description="Candidates to draw for a prompt.")]


class AskConfig(DrawConfig, ScorerConfig):
    """One selection."""

    reward: str = "flip-likelihood"
    """'flip', 'flip-likelihood', 'mutual', a judge ('pointwise', 'pairwise', 'listwise'),
    'scalar:MODEL', 'gold', a baseline such as 'longest', or 'package.module:Name'; by default
    'flip-likelihood', for a server, an engine of your own and with --adaptive 'flip'."""
    reward_options: RewardOptions = Field(default={})
    """Arguments of the reward by name, such as samples=4."""
    selector: str = "best"
    """Chooses by the scores: 'best', 'soft=0.1' (a temperature), 'pessimistic=0.1', 'majority',
    'weighted' and 'mob' (votes), 'mbr' (most similar to the others), or 'package.module:Name'."""
    answer: str | None = None
    """What votes compare: the verifier whose answers count, such as 'math'; by default the text."""
    reject: Sizes = Field(default=[])
    """Score candidates while they are written, after so many tokens, such as 32,64,128, and end the
    worst of them."""
    reject_keep: float = Field(default=0.5, gt=0, le=1)
    """The share of a prompt's candidates kept at each of these lengths, with --reject."""
    n: Count = 8

    @model_validator(mode="before")
    @classmethod
    def _reward_and_options(cls, fields: dict[str, Any]) -> dict[str, Any]:
        scorer = str(fields.get("reward_engine") or fields.get("engine") or "")
        if "reward" not in fields:
            # Others may not score a given answer, and only of F1 it is known what to expect.
            scores = scorer in ("", "tiny") or scorer.startswith(("hf:", "vllm:"))
            if not scores or fields.get("adaptive") is not None:
                return {**fields, "reward": "flip"}
            return fields
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


class SelectConfig(PromptsConfig, AskConfig):
    """Selections over a dataset."""

    shard: tuple[int, int] | None = None
    """I/K: only the I-th of K parts of the prompts, so that K machines share a dataset."""
    n: Count = 16
    adaptive: float | None = Field(default=None, ge=0)
    """Draw in rounds and end a prompt when its next candidate is expected to gain no more than this
    in units of the reward; 0 ends it at the reward's ceiling alone. N is then the most."""
    adaptive_prior: str | None = None
    """A pool file of other prompts whose scores say what to expect; flip does without."""
    adaptive_weight: float = Field(default=1.0, gt=0)
    """How many candidates those scores count for."""
    round_size: int = Field(default=4, ge=1)
    """Candidates that are drawn at once, with --adaptive."""
    window: InFlight = None
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
