"""The audit: how often attacks beat honest responses under rewards, as rows, numbers and a page."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from bestofn import concurrency
from bestofn.analysis.results import write_results
from bestofn.config import NO_ENGINE, AuditConfig, EngineConfig
from bestofn.dataset.pools import prompts_of
from bestofn.dataset.run import ErrorPolicy, run
from bestofn.dataset.score import origin_of, scoring_model
from bestofn.engines.base import Engine, SamplingParams
from bestofn.errors import ConfigError, EngineError, RunFailedError
from bestofn.evals.audit.attacks import FLAG, Attack, Scorer, chosen, scorers_of
from bestofn.evals.audit.results import as_dict, table, write_page
from bestofn.generators import EngineGenerator, collect
from bestofn.models import Engines
from bestofn.prompts import folded, random_for, user_message
from bestofn.redaction import without_secrets
from bestofn.resuming import comparing, engine_files, input_of
from bestofn.rewards.base import load_reward
from bestofn.rewards.baselines import MeanLogprob
from bestofn.scoring import RewardModel, add_scores, without_cost
from bestofn.store import pool
from bestofn.store.journal import Confirm, check_output
from bestofn.tiny import answer, read
from bestofn.types import Candidate, Pool, Prompt
from bestofn.verifiers.base import column

NAME = "audit"
OWN_ENGINE = {"engine", "engine_args", "engine_options"}  # of a reward


def run_audit(
    config: AuditConfig, folder: Path, engines: Engines, *, progress: bool = False
) -> dict[str, Any]:
    """Attacks rewards, or resumes that, and returns what it writes to audit.json.

    The folder gets audit.jsonl, a pool row for each prompt with the honest response first, and
    from it audit.json, audit.csv and audit.html. Rows that are there must have been begun with the
    same settings, except `limit` and `window`. Prompts whose honest response could not be drawn
    are tried again.

    Raises:
        ConfigError: a setting or a prompt is wrong, or the rows have other settings.
        EngineError: a model cannot be loaded.
        RunFailedError: no honest response could be drawn.
    """
    prompts, audit = prompts_of(config), _Audit(config)
    check_output(folder, folder=True)
    path = folder / f"{NAME}.jsonl"
    names = [attack.name for attack in audit.attacks]
    settings = config.model_dump(mode="json", exclude={"limit", "window"}) | {
        "prompts": input_of(config.prompts),
        "identity": audit.identity(),
        "attacks": names,
    }

    def attack_all(missing: Iterator[Prompt], confirm: Confirm) -> Iterator[Pool]:
        audit.load(engines)
        confirm(settings | {"identity": audit.identity()})
        return audit.rows(missing)

    run(
        lambda accept, _: iter([*filter(accept, prompts)]),
        path,
        attack_all,
        settings=settings,
        compare=comparing(AuditConfig, described=("rewards", "verifier")),
        policy=ErrorPolicy(max_error_rate=1.0, retry_errors=True),
        otherwise="write to another folder",
        columns=True,
        more={"attacks": names},
        total=len(prompts),
        progress=progress,
        what="scoring " + ", ".join(scorer.name for scorer in audit.scorers),
    )
    rows = {folded(row.prompt.id): row for row in pool.read(path)}
    ids = dict.fromkeys(folded(prompt.id) for prompt in prompts)
    result = {
        "source": config.prompts,
        "engine": without_secrets(config.engine),
        "reward_engine": without_secrets(config.reward_engine or config.engine),
        "honest_responses": audit.origin,
        "seed": config.seed,
    } | as_dict([rows[name] for name in ids], audit.attacks, audit.scorers, config.seed)
    write_results(folder, NAME, result, table(result))
    write_page(result, folder / f"{NAME}.html")
    return result


class _Audit:
    """Draws and scores the rows of an audit, with the models that this takes."""

    def __init__(self, config: AuditConfig) -> None:
        self.config = config
        self.attacks, self.scorers = chosen(config.attacks), scorers_of(config.rewards)
        self.generator = config.named()
        self.models = [scoring_model(s.reward, config, self.generator) for s in self.scorers]
        self.measures = any(scorer.reward.reward == MeanLogprob.name for scorer in self.scorers)
        self.origin, drawn = f"greedy responses of {config.engine}", True
        self.tiny = config.honest_column is None and config.prompts.startswith("tiny:")
        if self.tiny:
            self.origin, drawn = "right answers of the tiny world", False
        elif config.honest_column is not None:
            self.origin, drawn = f"the column {config.honest_column!r}", False
        self.runs = drawn or self.measures  # the engine that draws
        self.loaded: dict[str, Engine] = {}
        self.rewards: list[RewardModel] = []

    def identity(self) -> dict[str, Any]:
        """What settings do not show of models and rewards, more exactly once they are loaded."""
        found, made = dict[str, Any](), dict[str, Any]()
        if self.generator is not None and self.runs:
            found = engine_files(self.generator, self._engine(self.generator))
        for scorer, model in zip(self.scorers, self.models, strict=True):
            reward = scorer.reward.model_copy(update={"name": None, "options": scorer.options})
            how = origin_of(reward, model, self.config.verifier, self._engine(model))
            made[scorer.name] = reward.model_dump(mode="json", include=OWN_ENGINE) | how["identity"]
        return found | {"scores": made}

    def _engine(self, model: EngineConfig | None) -> Engine | None:
        return None if model is None else self.loaded.get(model.model_dump_json())

    def load(self, engines: Engines) -> None:
        """Loads the models and the rewards."""
        if self.runs and self.generator is None:
            raise ConfigError(NO_ENGINE)
        drawing = self.generator if self.runs else None
        needed = [model for model in (*self.models, drawing) if model is not None]
        names = [model.model_dump_json() for model in needed]
        self.loaded = dict(zip(names, engines.get(*needed), strict=True))
        self.rewards = [
            load_reward(
                scorer.reward.reward,
                engine=self._engine(model),
                verifier=self.config.verifier,
                name=scorer.name,
                **scorer.options,
            )
            for scorer, model in zip(self.scorers, self.models, strict=True)
        ]

    def rows(self, prompts: Iterable[Prompt]) -> Iterator[Pool]:
        """The prompts' rows in their order, many under way at once."""
        window = concurrency.Window(len(self.attacks) + 1, self.config.window)
        reasons = set[str | None]()
        for row in concurrency.map_in_window(self._row, prompts, window):
            reasons.add(row.candidates[0].error)
            yield row
        if None not in reasons:
            raise RunFailedError(f"no honest response could be drawn: {reasons.pop()}")

    async def _row(self, prompt: Prompt) -> Pool:
        engine, seed = self._engine(self.generator), self.config.seed
        row = attacked(prompt, await self._honest(prompt, engine), self.attacks, seed)
        names = [attack.name for attack in self.attacks]
        scorers = [*zip(self.scorers, self.rewards, strict=True)]
        for reads in (False, True):  # other rewards see no log-probabilities
            if reads and self.measures and engine is not None:
                await add_logprobs(row, engine)
            for scorer, reward in scorers:
                if reads == (scorer.reward.reward == MeanLogprob.name):
                    await compete(row, names, scorer, reward, seed)
        return row

    async def _honest(self, prompt: Prompt, engine: Engine | None) -> Candidate:
        if (name := self.config.honest_column) is not None:
            text = column(prompt, name, str, "a response")
            if not text.strip():
                raise ConfigError(f"column {name!r} of prompt {prompt.id!r} is empty")
            return Candidate(0, text)
        if self.tiny:
            rng = random_for("honest", self.config.seed, prompt)
            return Candidate(0, answer(read(user_message(prompt)), rng))
        assert engine is not None
        greedy = SamplingParams(temperature=0, max_tokens=self.config.max_tokens)
        generator = EngineGenerator(engine, greedy, seed=None, keep_tokens=False)
        (drawn,) = await collect(generator.draw(prompt, 1))
        # Without counts and log-probabilities, which attacks have not either.
        return replace(drawn, token_count=None, mean_logprob=None, sum_logprob=None)


# --- contests -------------------------------------------------------------------------------------


def attacked(prompt: Prompt, honest: Candidate, attacks: Sequence[Attack], seed: int) -> Pool:
    """The honest response, then the attacks in their order."""
    instruction = user_message(prompt)
    texts = [
        attack.write(instruction, honest.text, random_for(attack.name, seed, prompt))
        for attack in attacks
    ]
    return Pool(prompt, [honest, *(Candidate(i, text) for i, text in enumerate(texts, 1))])


async def add_logprobs(row: Pool, engine: Engine) -> None:
    """Sets how likely the engine finds each response; one that it cannot score stays without."""

    async def measure(candidate: Candidate) -> None:
        try:
            scores = await engine.loglikelihood(row.prompt, candidate.text, close=True)
        except EngineError:
            return
        candidate.mean_logprob = fmean(scores.token_logprobs)
        candidate.sum_logprob = sum(scores.token_logprobs)

    await concurrency.gather(*map(measure, row.candidates))


async def compete(
    row: Pool, names: Sequence[str], scorer: Scorer, reward: RewardModel, seed: int
) -> None:
    """Sets the reward's scores on the honest response and on the attacks, whose names are given.

    A pointwise reward scores each distinct response once; one that compares sees the honest
    response and one attack at a time, in an order drawn from the seed.
    """
    honest, *others = row.candidates

    async def compare(name: str, other: Candidate) -> None:
        order = random_for(name, seed, row.prompt).sample([honest, other], 2)
        pair = [replace(candidate, index=index, scores={}) for index, candidate in enumerate(order)]
        await add_scores(row.prompt, pair, reward)
        mine, its = pair if order[0] is honest else reversed(pair)
        honest.scores[f"{reward.name}:{name}"] = mine.scores[reward.name]
        other.scores[reward.name] = its.scores[reward.name]

    if not reward.pointwise:
        await concurrency.gather(*map(compare, names, others))
        return
    # Where the copy guard has flagged nothing there is nothing to strip: the score stays the same.
    flagging = replace(scorer, copy_guard="flag").name
    left = []
    for candidate in row.candidates:
        known = candidate.scores.get(flagging)
        if scorer.copy_guard != "strip" or known is None or FLAG in known.flags:
            left.append(candidate)
        else:
            candidate.scores[scorer.name] = without_cost(known)
    await add_scores(row.prompt, left, reward)
