"""The audit: how often attacks beat honest responses under rewards, as rows, numbers and a page."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bestofn import concurrency
from bestofn.config import NO_ENGINE, AuditConfig, EngineConfig
from bestofn.dataset.pools import prompts_of
from bestofn.dataset.run import ErrorPolicy, run
from bestofn.dataset.score import origin_of, scoring_model
from bestofn.engines.base import Engine, SamplingParams
from bestofn.errors import ConfigError, RunFailedError
from bestofn.evals.audit.attacks import Attack, chosen
from bestofn.evals.audit.contests import (
    Scorer,
    add_logprobs,
    attacked,
    compete,
    scorers_of,
)
from bestofn.evals.audit.page import write_page
from bestofn.evals.audit.verdicts import as_dict, table
from bestofn.generators import EngineGenerator, collect
from bestofn.models import Engines
from bestofn.prompts import folded, random_for, user_message
from bestofn.redaction import without_secrets
from bestofn.resuming import comparing, engine_files, input_of
from bestofn.rewards.base import load_reward
from bestofn.sampler import window_of
from bestofn.scoring import RewardModel
from bestofn.store import pool
from bestofn.store.journal import Confirm, check_output, write_atomically
from bestofn.tiny import answer, read
from bestofn.types import Candidate, Pool, Prompt

ROWS, JSON, CSV, PAGE = "audit.jsonl", "audit.json", "audit.csv", "audit.html"


def run_audit(
    config: AuditConfig, folder: Path, engines: Engines, *, progress: bool = False
) -> dict[str, Any]:
    """Attacks rewards, or goes on with it, and writes what came of it.

    The folder gets audit.jsonl, a pool row for each prompt with the honest response first, and
    from it audit.json, audit.csv and audit.html.

    Args:
        config: Which prompts, attacks and rewards.
        folder: Where to write. If its rows are there, they must have been begun with the same
            settings; `limit` and `window` may differ. Prompts whose honest response could not be
            drawn are tried again.
        engines: Loads the models.
        progress: Shows how far it is.

    Returns:
        What audit.json holds.

    Raises:
        ConfigError: a setting or a prompt is wrong, or the rows have other settings.
        EngineError: a model cannot be loaded.
        RunFailedError: no honest response could be drawn.
    """
    attacks, scorers = chosen(config.attacks), scorers_of(config.rewards)
    prompts = prompts_of(config)
    check_output(folder, folder=True)
    path = folder / ROWS
    names = [attack.name for attack in attacks]
    settings = _settings(config, scorers) | {"attacks": names}

    def attack_all(missing: Iterator[Prompt], confirm: Confirm) -> Iterator[Pool]:
        attacker = _Attacker(config, attacks, scorers, engines)
        confirm(settings | {"identity": _identity(config, scorers, attacker.loaded)})
        return attacker.rows(missing)

    run(
        lambda accept, _: iter([*filter(accept, prompts)]),
        path,
        attack_all,
        settings=settings,
        compare=_same_audit,
        policy=ErrorPolicy(max_error_rate=1.0, retry_errors=True),
        otherwise="write to another folder",
        more={"attacks": names},
        total=len(prompts),
        progress=progress,
        what="scoring " + ", ".join(scorer.name for scorer in scorers),
    )
    rows = {folded(row.prompt.id): row for row in pool.read(path)}
    ids = dict.fromkeys(folded(prompt.id) for prompt in prompts)
    result = {
        "source": config.prompts,
        "engine": without_secrets(config.engine),
        "reward_engine": without_secrets(config.reward_engine or config.engine),
        "honest_responses": _origin(config),
        "seed": config.seed,
    } | as_dict([rows[name] for name in ids], attacks, scorers, config.seed)
    _write(folder, result)
    return result


OWN_ENGINE = {"engine", "engine_args", "engine_options"}  # of a reward
_same_audit = comparing(AuditConfig, described=("rewards", "verifier"))


def _settings(config: AuditConfig, scorers: Sequence[Scorer]) -> dict[str, Any]:
    """What the rows depend on."""
    settings = config.model_dump(mode="json", exclude={"limit", "window"})
    prompts, identity = input_of(config.prompts), _identity(config, scorers, {})
    return settings | {"prompts": prompts, "identity": identity}


def _identity(
    config: AuditConfig, scorers: Sequence[Scorer], loaded: Mapping[str, Engine]
) -> dict[str, Any]:
    """What the settings do not show of models and rewards, more exactly once they are loaded."""
    generator, found = config.named(), {}
    if generator is not None and _runs(config, scorers):
        found = engine_files(generator, loaded.get(_key(generator)))
    made: dict[str, Any] = {}
    for scorer in scorers:
        model = scoring_model(scorer.reward, config, generator)
        reward = scorer.reward.model_copy(update={"name": None, "options": scorer.options})
        engine = None if model is None else loaded.get(_key(model))
        how = origin_of(reward, model, config.verifier, engine)
        made[scorer.name] = reward.model_dump(mode="json", include=OWN_ENGINE) | how["identity"]
    return found | {"scores": made}


def _key(model: EngineConfig) -> str:
    return model.model_dump_json()


def _draws(config: AuditConfig) -> bool:
    """Whether the engine writes the honest responses."""
    return config.honest_column is None and not _is_tiny(config)


def _runs(config: AuditConfig, scorers: Sequence[Scorer]) -> bool:
    """Whether the engine writes or measures responses."""
    return _draws(config) or _measures(scorers)


def _measures(scorers: Sequence[Scorer]) -> bool:
    """Whether the engine says how likely it finds responses."""
    return any(scorer.reward.reward == "mean-logprob" for scorer in scorers)


def _origin(config: AuditConfig) -> str:
    if config.honest_column is not None:
        return f"the column {config.honest_column!r}"
    if _is_tiny(config):
        return "right answers of the tiny world"
    return f"greedy responses of {config.engine}"


def _is_tiny(config: AuditConfig) -> bool:
    return config.prompts.startswith("tiny:")


class _Attacker:
    """Draws and scores the rows of an audit, with the models that this takes."""

    def __init__(
        self,
        config: AuditConfig,
        attacks: Sequence[Attack],
        scorers: Sequence[Scorer],
        engines: Engines,
    ) -> None:
        self.config = config
        self.attacks = attacks
        self.scorers = scorers
        generator = config.named()
        models = [scoring_model(scorer.reward, config, generator) for scorer in scorers]
        needed = [model for model in models if model is not None]
        runs = _runs(config, scorers)
        if runs:
            if generator is None:
                raise ConfigError(NO_ENGINE)
            needed.append(generator)
        loaded: list[Engine] = engines.get(*needed)
        self.loaded = dict(zip(map(_key, needed), loaded, strict=True))
        self.engine = loaded[-1] if runs else None
        scoring = iter(loaded)
        self.rewards: list[RewardModel] = [
            load_reward(
                scorer.reward.reward,
                engine=None if model is None else next(scoring),
                verifier=config.verifier,
                name=scorer.name,
                **scorer.options,
            )
            for scorer, model in zip(scorers, models, strict=True)
        ]

    def rows(self, prompts: Iterable[Prompt]) -> Iterator[Pool]:
        """The prompts' rows in their order, many under way at once.

        Raises:
            ConfigError: a prompt has no honest response.
            RunFailedError: none could be drawn.
        """
        window = window_of(len(self.attacks) + 1, self.config.window)
        reasons = set[str | None]()
        for row in concurrency.map_in_window(self._row, prompts, window):
            reasons.add(row.candidates[0].error)
            yield row
        if None not in reasons:
            raise RunFailedError(f"no honest response could be drawn: {reasons.pop()}")

    async def _row(self, prompt: Prompt) -> Pool:
        honest = await self._honest(prompt)
        row = attacked(prompt, honest, self.attacks, self.config.seed)
        if _measures(self.scorers) and self.engine is not None:
            await add_logprobs(row, self.engine)
        names = [attack.name for attack in self.attacks]
        for scorer, reward in zip(self.scorers, self.rewards, strict=True):
            await compete(row, names, scorer, reward, self.config.seed)
        return row

    async def _honest(self, prompt: Prompt) -> Candidate:
        if self.config.honest_column is not None:
            return Candidate(0, _from_column(prompt, self.config.honest_column))
        if _is_tiny(self.config):
            rng = random_for("honest", self.config.seed, prompt)
            return Candidate(0, answer(read(user_message(prompt)), rng))
        assert self.engine is not None
        greedy = SamplingParams(temperature=0, max_tokens=self.config.max_tokens)
        generator = EngineGenerator(self.engine, greedy, seed=None, keep_tokens=False)
        (drawn,) = await collect(generator.draw(prompt, 1))
        # Without counts and log-probabilities, which attacks have not either.
        return replace(drawn, token_count=None, mean_logprob=None, sum_logprob=None)


def _from_column(prompt: Prompt, column: str) -> str:
    if column not in prompt.columns:
        known = ", ".join(prompt.columns) or "none"
        raise ConfigError(f"the prompt {prompt.id!r} has no column {column!r}; it has {known}")
    value = prompt.columns[column]
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(
            f"the column {column!r} of the prompt {prompt.id!r} must be a response, not {value!r}"
        )
    return value


def _write(folder: Path, result: dict[str, Any]) -> None:
    write_atomically(folder / JSON, json.dumps(result, ensure_ascii=False, indent=1) + "\n")
    rows = table(result)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(folder / CSV, text.getvalue())
    write_page(result, folder / PAGE)
