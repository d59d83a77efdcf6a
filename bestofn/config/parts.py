"""Parts of several configurations: a model, rewards."""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from bestofn.engines.identity import Described, same_engine
from bestofn.errors import ConfigError
from bestofn.rewards.base import default_name, share
from bestofn.section import NO_ENGINE, Flag, Section

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


NamedRewards = Annotated[
    list[RewardConfig], BeforeValidator(_names_as_rewards), AfterValidator(_differently_called)
]
Rewards = Annotated[NamedRewards, Flag(("--reward",))]
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
