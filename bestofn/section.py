"""What configurations are made of: sections of fields, a model, rewards; errors in a sentence."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from bestofn.engines.identity import Described, same_engine
from bestofn.errors import ConfigError
from bestofn.rewards.base import default_name, share

S = TypeVar("S", bound="Section")

OPTIONS = "the options"
"""Where the fields of a command come from."""
NO_ENGINE = (
    "no model is named; give --engine vllm:MODEL, hf:MODEL or openai:URL#MODEL, or --engine tiny "
    "for a try with the embedded toy model"
)


@dataclass(frozen=True, slots=True)
class Flag:
    """How a field is given on the command line, if not by its own name and as it is.

    Attributes:
        names: The option's names, by default the field's.
        text: Whether `\\n` in a value is a newline, and a comma separates no values of a list.
    """

    names: tuple[str, ...] = ()
    text: bool = False


class Section(BaseModel):
    """Some fields that belong together; an unknown field is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


def checked(kind: type[S], fields: Mapping[str, Any], where: str) -> S:
    """The section with these fields.

    Raises:
        ConfigError: one of them is wrong; the message starts with `where`.
    """
    try:
        return kind.model_validate(dict(fields))
    except ValidationError as error:
        raise ConfigError(f"{where}: {_sentence(kind, error, where)}") from None


def _sentence(kind: type[Section], error: ValidationError, where: str) -> str:
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    key = ".".join(path)
    if first["type"] == "missing":
        shown = f"--{key.replace('_', '-')}" if where == OPTIONS else f"the key {key!r}"
        return f"{shown} is missing" + (f": {NO_ENGINE}" if path[-1] == "engine" else "")
    if first["type"] != "extra_forbidden":
        said = first["msg"].removeprefix("Value error, ")
        return f"the key {key!r} is wrong: {said}" if key else said
    schema = kind.model_json_schema()
    known = [
        name
        for part in (schema, *schema.get("$defs", {}).values())
        for name in part.get("properties", ())
    ]
    near = difflib.get_close_matches(path[-1], known, 1, cutoff=0.5)
    return f"unknown key {key!r}" + "".join(f"; did you mean {name!r}?" for name in near)


SPEC = (
    "'vllm:MODEL', 'hf:MODEL', 'openai:URL#MODEL', 'package.module:Name', or 'tiny', the embedded "
    "toy model."
)


class EngineConfig(Section):
    """A model, where one is needed."""

    engine: str | None = Field(default=None, description=SPEC)
    engine_args: Annotated[dict[str, Any], Flag(("--engine-arg",))] = Field(default={})
    """Arguments of the engine by name, such as max_model_len=4096."""
    engine_options: Annotated[dict[str, Any], Flag(("--engine-option",))] = Field(default={})
    """Options that cost no other model: 'chat_template_kwargs={enable_thinking: false}', lora=PATH,
    guided=true."""

    @model_validator(mode="after")
    def _arguments_of_one(self) -> "EngineConfig":
        if self.engine is None and self.engine_args:
            raise ValueError(f"engine_args belong to an engine, so name it: {NO_ENGINE}")
        return self

    @property
    def spec(self) -> str:
        """The model's name.

        Raises:
            ConfigError: there is none.
        """
        if self.engine is None:
            raise ConfigError(NO_ENGINE)
        return self.engine

    def named(self) -> "EngineConfig | None":
        """The model without the fields of a subclass, None where there is no name."""
        if self.engine is None:
            return None
        return EngineConfig(
            engine=self.engine, engine_args=self.engine_args, engine_options=self.engine_options
        )

    def described(self) -> Described:
        """The engine, with nothing loaded."""
        return Described(self.spec, self.engine_args, self.engine_options)

    def is_same(self, other: "EngineConfig") -> bool:
        """Whether both load the same model with the same arguments, however it is spelled."""
        same = same_engine(self.spec) == same_engine(other.spec)
        return same and self.engine_args == other.engine_args

    def sharing(self, other: "EngineConfig | None") -> "EngineConfig":
        """With the arguments of another one that names the same model, if it has none itself."""
        given = self.model_copy(update={"engine_args": other.engine_args}) if other else self
        return given if other and not self.engine_args and given.is_same(other) else self


# --- rewards --------------------------------------------------------------------------------------

TAKEN = ("random", "oracle", "first", "longest", "shortest", "mean-logprob", "majority")


def _free_of_signs(name: str) -> str:
    if not name or set(name) & set("@:,"):
        raise ValueError(f"a name is not empty and has none of @ : , in it, unlike {name!r}")
    return name


Name = Annotated[str, AfterValidator(_free_of_signs)]


class RewardConfig(EngineConfig):
    """One reward, and the model that scores, if it is another one than for the other rewards."""

    reward: str
    """'flip', 'flip-likelihood', a judge ('pointwise', 'pairwise', 'listwise'), 'scalar', 'gold',
    a baseline such as 'longest', or 'package.module:Name'."""
    name: Name | None = None
    """Names the scores, by default as the reward is called."""
    options: dict[str, Any] = Field(default={})
    """Arguments of the reward, such as samples: 4."""

    @model_validator(mode="after")
    def _consistent(self) -> "RewardConfig":
        if self.name in TAKEN and self.name != self.reward:
            raise ValueError(f"the name {self.name!r} means something else in curves")
        if self.reward == "scalar" and "model" not in self.options:
            raise ValueError("'scalar' needs a reward model, as in scalar:MODEL or options: model")
        if apart := self.options.keys() & {"engine", "verifier", "name"}:
            raise ValueError(f"{min(apart)!r} is no option but has a key of its own")
        return self

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


def check_distinct(what: str, names: list[str]) -> None:
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"two {what} are called {twice[0]!r}; give one of them a name")


def _differently_called(rewards: list[RewardConfig]) -> list[RewardConfig]:
    check_distinct("rewards", [reward.label for reward in rewards])
    return rewards


Rewards = Annotated[
    list[RewardConfig],
    BeforeValidator(_names_as_rewards),
    AfterValidator(_differently_called),
    Flag(("--reward",)),
]
RewardOptions = Annotated[dict[str, Any], Flag(("--reward-option",))]


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
        if not given:
            return value
        shares = share(given, {reward.label: reward.reward for reward in value})
        return [
            RewardConfig(
                **reward.model_dump(exclude={"options"}, exclude_unset=True),
                options=reward.options | shares[reward.label],
            )
            for reward in value
        ]
