"""Trains a policy with TRL's GRPO on a reward of bestofn, and measures it before and after.

    python recipes/grpo_flip.py recipes/grpo_tiny.yaml

For each seed of the recipe: draws responses of the policy to held-out prompts, trains it, and
draws again. Writes to the recipe's folder, for each seed, the trained model and results.json (all
that was measured, prompt by prompt); and over all seeds summary.json, summary.md and grpo.png.
Seeds that have their results are not run again. One process, one device; needs
`pip install 'bestofn[train]'`.
"""

import argparse
import gc
import json
import shutil
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from math import isnan
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, ValidationInfo, field_validator
from tqdm import tqdm
from transformers import PrinterCallback, TrainerCallback
from transformers.utils import logging

from bestofn import SamplingParams, load_engine, tiny
from bestofn.analysis.findings import FEW, shown, signed
from bestofn.analysis.proxies import scores_of
from bestofn.config import RewardConfig, Section, checked
from bestofn.dataset.pools import add, draw
from bestofn.dataset.sources import read_rows
from bestofn.engines.chat import ChatFormat
from bestofn.engines.model_files import load_tokenizer, locate
from bestofn.errors import BestOfNError, ConfigError
from bestofn.estimators import Interval, bootstrap_mean
from bestofn.generators import EngineGenerator
from bestofn.integrations.trl import flip_reward_func
from bestofn.prompts import as_prompt, plain
from bestofn.recipe import read_mapping
from bestofn.redaction import without_secrets
from bestofn.resuming import same_spelled
from bestofn.rewards.base import load_reward, needs_engine
from bestofn.rewards.gold import Gold
from bestofn.scoring import RewardModel
from bestofn.types import Pool, Prompt
from bestofn.verifiers import load_verifier

Array = NDArray[np.float64]

GOLD, TOKENS = "gold", "tokens"
TINY_TRAIN = "tiny-train:"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")


class Prompts(Section):
    """Where prompts come from."""

    source: str
    """'tiny-train:COUNT' for instructions of the split that the tiny model was trained on, drawn by
    the seed; else what `bestofn sample` takes: a file, 'hf:NAME[:CONFIG][:SPLIT]' (streamed), or
    'tiny:COUNT' for instructions of the other split."""
    column: str = "prompt"
    """Holds a text, or chat messages, of which the prompt is those up to the first user message."""
    where: dict[str, Any] = Field(default={})
    """Take only rows that have these values in these columns."""
    longest: int = Field(default=4000, ge=1)
    """Leave out prompts of more characters."""
    count: int | None = Field(default=None, ge=1)
    """Take the first so many."""


class Training(Section):
    """How the policy is trained."""

    steps: int = Field(ge=1)
    """Updates of the policy."""
    prompts_per_step: int = Field(default=24, ge=1)
    """Prompts of one update."""
    samples: int = Field(default=8, ge=2)
    """Responses to each of them, which are compared with each other."""
    micro_batch: int = Field(default=8, ge=1)
    """Responses that the policy learns from at once; prompts_per_step * samples is a multiple."""
    max_tokens: int = Field(default=1024, ge=1)
    """Of a response."""
    learning_rate: float = Field(default=1e-6, gt=0)
    """Of AdamW, constant."""
    beta: float = Field(default=0.0, ge=0)
    """Weight of the KL divergence from the policy as it was; above 0 a copy of it is kept."""
    options: dict[str, Any] = Field(default={})
    """Further arguments of TRL's GRPOConfig, such as use_vllm and bf16."""

    @field_validator("micro_batch")
    @classmethod
    def _divides(cls, value: int, info: ValidationInfo) -> int:
        responses = info.data.get("prompts_per_step", 0) * info.data.get("samples", 0)
        if responses % value:
            raise ValueError(f"{responses} responses a step are no multiple of {value}")
        return value


class Evaluation(Section):
    """What is measured before and after."""

    prompts: Prompts
    """Held-out prompts; those that are among the training prompts are left out."""
    samples: int = Field(default=8, ge=1)
    """Responses to each of them."""
    max_tokens: int = Field(default=1024, ge=1)
    """Of a response."""
    verifier: str | None = None
    """Says which responses are right: what `bestofn score --verifier` takes."""
    engine: str = "hf"
    """Draws them: 'hf' or 'vllm'."""
    engine_args: dict[str, Any] = Field(default={})
    """Arguments of that engine, such as gpu_memory_utilization."""


class Recipe(Section):
    """A whole run."""

    output: Path
    """The folder for everything that the run writes."""
    seeds: list[int] = Field(min_length=1)
    """One training run each; a seed decides prompts, responses and their order."""
    policy: str
    """The model to be trained: 'tiny', a folder, or a repository of the hub."""
    chat_template_kwargs: dict[str, Any] = Field(default={})
    """For the policy's chat template, such as enable_thinking: false."""
    temperature: float = Field(default=1.0, gt=0)
    """Of all responses, in training and in evaluation."""
    reward: RewardConfig
    """What the policy is trained on: reward, engine, engine_args, options as in other recipes."""
    prompts: Prompts
    """What it is trained with."""
    training: Training
    """How it is trained."""
    evaluation: Evaluation
    """What is measured."""

    @field_validator("reward")
    @classmethod
    def _names_its_model(cls, value: RewardConfig) -> RewardConfig:
        if needs_engine(value.reward) and value.engine is None:
            raise ValueError(f"{value.reward!r} needs the model that scores, as reward.engine")
        return value


# --- prompts --------------------------------------------------------------------------------------


def training_prompts(prompts: Prompts, seed: int) -> list[Prompt]:
    """Distinct prompts.

    Raises:
        ConfigError: there are none, or the source cannot be read.
    """
    if not prompts.source.startswith(TINY_TRAIN):
        return held_out_prompts(prompts, ())
    count = prompts.source.removeprefix(TINY_TRAIN)
    if not count.isdecimal() or int(count) < 1:
        raise ConfigError(f"training instructions are 'tiny-train:COUNT', not {prompts.source!r}")
    rng = Random(f"grpo {seed}")
    drawn = {tiny.draw(rng, "train").instruction: None for _ in range(int(count))}
    return [as_prompt(instruction) for instruction in [*drawn][: prompts.count]]


def held_out_prompts(prompts: Prompts, training: Sequence[Prompt]) -> list[Prompt]:
    """Distinct prompts that are not among those for training.

    Raises:
        ConfigError: there are none, or the source cannot be read.
    """
    taken = {prompt.id for prompt in training}
    found: dict[str, Prompt] = {}
    for prompt in _readable(prompts):
        if prompt.id not in taken:
            found.setdefault(prompt.id, prompt)
        if len(found) == prompts.count:
            break
    if not found:
        raise ConfigError(
            f"{prompts.source} gives no prompts; look at column ({prompts.column!r}), where, and "
            "longest, and whether all of them are training prompts"
        )
    return [*found.values()]


def _readable(prompts: Prompts) -> Iterator[Prompt]:
    """The prompts of those rows that are wanted and hold one."""
    for row in read_rows(prompts.source, streaming=True):
        if all(row.values.get(name) == value for name, value in prompts.where.items()):
            asked: Any = row.values.get(prompts.column)
            try:
                prompt = as_prompt(_opening(asked) if isinstance(asked, list) else asked)
            except ConfigError:
                continue
            if sum(len(message.content) for message in prompt.messages) <= prompts.longest:
                others = {n: plain(v) for n, v in row.values.items() if n != prompts.column}
                yield as_prompt(prompt, columns=others)


def _opening(messages: list[Any]) -> list[Any]:
    """A conversation up to its first user message."""
    roles = [message.get("role") if isinstance(message, Mapping) else None for message in messages]
    return messages[: roles.index("user") + 1] if "user" in roles else messages


# --- training -------------------------------------------------------------------------------------


def train(
    recipe: Recipe, config: Any, prompts: Sequence[Prompt], reward: RewardModel, folder: Path
) -> list[dict[str, Any]]:
    """Trains the policy and saves it as folder/model.

    Returns:
        What TRL logged at each step.
    """
    from trl import GRPOTrainer

    policy = locate(recipe.policy)
    chat = ChatFormat(load_tokenizer(policy)).with_kwargs(recipe.chat_template_kwargs)
    _, opened = chat.encode(prompts[0])
    trainer = GRPOTrainer(
        model=policy,
        args=config,
        reward_funcs=flip_reward_func(reward, opened=opened),
        train_dataset=_dataset(prompts),
        callbacks=[Progress(f"seed {config.seed}", config.max_steps)],
    )
    # The bar says what there is to say; the printing of each step goes.
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    trainer.save_model(str(folder / "model"))
    own = Path(policy) / "bestofn.json"  # the backward template that suits the model
    if own.is_file():
        shutil.copy(own, folder / "model")
    return [entry for entry in trainer.state.log_history if "reward" in entry]


def training_config(recipe: Recipe, seed: int, folder: Path) -> Any:
    """TRL's GRPOConfig.

    Raises:
        ConfigError: TRL is missing, or does not take an option.
    """
    # It warns of every vLLM that it does not know, whether or not one is used.
    warnings.filterwarnings("ignore", message="TRL currently supports vLLM")
    try:
        from trl import GRPOConfig
    except ImportError:
        raise ConfigError("GRPO needs TRL: pip install 'bestofn[train]'") from None
    settings = recipe.training
    responses = settings.prompts_per_step * settings.samples
    arguments = {
        "output_dir": str(folder / "trainer"),
        "seed": seed,
        "max_steps": settings.steps,
        "num_generations": settings.samples,
        "per_device_train_batch_size": settings.micro_batch,
        "gradient_accumulation_steps": responses // settings.micro_batch,
        "max_completion_length": settings.max_tokens,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": "constant",
        "beta": settings.beta,
        "temperature": recipe.temperature,
        "chat_template_kwargs": recipe.chat_template_kwargs or None,
        "save_strategy": "no",
        "report_to": "none",
        "logging_steps": 1,
        "disable_tqdm": True,
        "dataloader_pin_memory": torch.cuda.is_available(),
    }
    try:
        return GRPOConfig(**arguments | settings.options)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"training.options: GRPOConfig refuses them: {error}") from None


def _dataset(prompts: Sequence[Prompt]) -> Any:
    from datasets import Dataset

    turns = [[{"role": m.role, "content": m.content} for m in p.messages] for p in prompts]
    return Dataset.from_list([{"prompt": messages} for messages in turns])


def _quiet_loading(policy: str) -> None:
    """Large models say how far they are; the embedded one loads too fast for that."""
    if policy == "tiny":
        logging.disable_progress_bar()


class Progress(TrainerCallback):  # type: ignore[misc]
    """A bar with the reward and the share of responses that have none."""

    def __init__(self, label: str, steps: int) -> None:
        self.bar = tqdm(total=steps, desc=label, unit="step", disable=None)

    def on_log(self, _args: Any, state: Any, *_: Any, logs: Any, **__: Any) -> None:
        if "reward" in logs:
            failed = next(rate for name, rate in logs.items() if name.endswith("/failure_rate"))
            self.bar.set_postfix(reward=f"{logs['reward']:.3f}", failed=f"{failed:.1%}")
            self.bar.update(state.global_step - self.bar.n)

    def on_train_end(self, *_: Any, **__: Any) -> None:
        self.bar.close()


# --- evaluation -----------------------------------------------------------------------------------


def evaluate(
    recipe: Recipe, seed: int, model: str, prompts: Sequence[Prompt], rewards: Sequence[RewardModel]
) -> dict[str, dict[str, list[float]]]:
    """Responses of a model to held-out prompts, measured.

    Returns:
        By measure (the rewards' names and "tokens"): `values`, the mean of each prompt's responses
        that have one, NaN where none has; and `failures`, the share of them that have none.
    """
    settings = recipe.evaluation
    engine = load_engine(f"{settings.engine}:{model}", **settings.engine_args)
    try:
        view = engine.with_options(chat_template_kwargs=recipe.chat_template_kwargs)
        sampling = SamplingParams(
            temperature=recipe.temperature, max_tokens=settings.max_tokens, logprobs=False
        )
        generator = EngineGenerator(view, sampling, seed, keep_tokens=False)
        pools = list(add(draw(prompts, generator, settings.samples), rewards))
    finally:
        engine.close()
    measures = {reward.name: [scores_of(pool, reward.name) for pool in pools] for reward in rewards}
    return {
        name: {
            "values": [_mean(row) for row in rows],
            "failures": [float(np.isnan(row).mean()) for row in rows],
        }
        for name, rows in {**measures, TOKENS: [_lengths(pool) for pool in pools]}.items()
    }


def _lengths(pool: Pool) -> list[float]:
    return [float("nan" if c.token_count is None else c.token_count) for c in pool.candidates]


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not isnan(value)]
    return sum(known) / len(known) if known else float("nan")


# --- a run ----------------------------------------------------------------------------------------


def run(recipe: Recipe) -> dict[str, Any]:
    """All seeds, one after another, and their summary."""
    _quiet_loading(recipe.policy)
    config = recipe.reward
    engine = None
    if config.engine is not None:
        engine = load_engine(config.engine, **config.engine_args)
    try:
        reward = load_reward(
            config.reward,
            engine=engine and engine.with_options(**config.engine_options),
            verifier=recipe.evaluation.verifier,
            name=config.name,
            **config.options,
        )
        results = [run_seed(recipe, seed, reward) for seed in recipe.seeds]
    finally:
        if engine is not None:
            engine.close()
    summary = summarise(results, reward.name)
    recipe.output.mkdir(parents=True, exist_ok=True)
    _write(recipe.output / "summary.json", summary)
    (recipe.output / "summary.md").write_text(table(summary) + "\n")
    picture(results, summary, recipe.output / "grpo.png")
    return summary


def run_seed(recipe: Recipe, seed: int, reward: RewardModel) -> dict[str, Any]:
    """One training run; what it measured is read from its file where that is there already.

    Raises:
        ConfigError: the file was written with other settings, an option is wrong, or there are
            too few prompts.
    """
    folder = recipe.output / f"seed-{seed}"
    file = folder / "results.json"
    settings = without_secrets(recipe.model_dump(mode="json", exclude={"output", "seeds"}))
    if file.is_file():
        known = read_result(file)
        if changes := same_spelled(without_secrets(known["recipe"]), settings):
            raise ConfigError(
                f"{file} was written with other settings ({', '.join(changes)}); give another "
                "output"
            )
        return known
    started = time.perf_counter()
    # What is wrong is told before anything is drawn.
    config = training_config(recipe, seed, folder)
    training = training_prompts(recipe.prompts, seed)
    if len(training) < recipe.training.prompts_per_step:
        raise ConfigError(
            f"{len(training)} training prompts are too few for steps of "
            f"{recipe.training.prompts_per_step}"
        )
    held_out = held_out_prompts(recipe.evaluation.prompts, training)
    rewards = [reward]
    if recipe.evaluation.verifier is not None:
        rewards.append(Gold(load_verifier(recipe.evaluation.verifier), GOLD))
    before = evaluate(recipe, seed, recipe.policy, held_out, rewards)
    log = train(recipe, config, training, reward, folder)
    _give_back_memory()
    after = evaluate(recipe, seed, str((folder / "model").resolve()), held_out, rewards)
    result = {
        "recipe": settings,
        "seed": seed,
        "prompts": [prompt.id for prompt in held_out],
        "seconds": time.perf_counter() - started,
        "before": before,
        "after": after,
        "log": log,
    }
    _write(file, result)
    return read_result(file)


def _give_back_memory() -> None:
    """What the trainer held goes before an engine asks for its share of the device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def read_result(file: Path) -> dict[str, Any]:
    """What `run_seed` wrote."""
    result: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return result


def _write(file: Path, content: Any) -> None:
    # NaN is null in JSON.
    file.write_text(json.dumps(_plain(content), indent=1) + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and isnan(value) else value


# --- what people read -----------------------------------------------------------------------------


def summarise(results: Sequence[dict[str, Any]], proxy: str) -> dict[str, Any]:
    """Before, after and change of each measure: each seed by itself, and the mean of all seeds.

    Intervals resample prompts, a prompt's responses and its before and after together.
    """
    names = [name for name in (proxy, GOLD, TOKENS) if name in results[0]["before"]]
    runs = {f"seed {result['seed']}": [result] for result in results}
    # Training prompts differ by seed, and with them the held-out ones that are left may.
    if len({tuple(result["prompts"]) for result in results}) == 1 < len(results):
        runs["all seeds"] = list(results)
    rows = {run: {name: _changes(part, name) for name in names} for run, part in runs.items()}
    last = rows[[*rows][-1]]
    return {
        "proxy": proxy,
        "prompts": len(results[0]["prompts"]),
        "seconds": [result["seconds"] for result in results],
        "runs": rows,
        "in_words": _words(last, proxy, len(results[0]["prompts"])),
    }


def _changes(results: Sequence[dict[str, Any]], name: str) -> dict[str, Any]:
    """One measure of some runs, on the prompts that have a value before and after in each."""
    values = np.array(
        [[result[when][name]["values"] for result in results] for when in ("before", "after")],
        dtype=np.float64,
    ).mean(axis=1)
    failures = [
        float(np.mean([result[when][name]["failures"] for result in results]))
        for when in ("before", "after")
    ]
    known = values[:, ~np.isnan(values).any(axis=0)]
    found: dict[str, Any] = {"failures": failures, "left_out": values.shape[1] - known.shape[1]}
    if known.size:
        intervals = {"before": known[0], "after": known[1], "change": known[1] - known[0]}
        found |= {part: _as_dict(bootstrap_mean(v)) for part, v in intervals.items()}
    return found


def _as_dict(interval: Interval) -> dict[str, float]:
    return {part: float(getattr(interval, part)) for part in ("mean", "low", "high")}


def _interval(parts: Mapping[str, float]) -> Interval:
    return Interval(*(np.asarray(parts[part]) for part in ("mean", "low", "high")))


def _words(measures: Mapping[str, Any], proxy: str, prompts: int) -> list[str]:
    if prompts < FEW:
        return [f"{FEW} prompts is the least from which anything is concluded here."]
    sentences = [_sentence(name, found) for name, found in measures.items()]
    if GOLD in measures:
        sentences.append(
            f"{proxy} is what was trained on: that it rises shows that training works, and nothing "
            "about quality. Gold is the evidence."
        )
    else:
        sentences.append(
            f"Nothing but {proxy} was measured, which training raises by construction."
        )
    return sentences


def _sentence(name: str, found: Mapping[str, Any]) -> str:
    if "change" not in found:
        return f"{name} has no value on any prompt."
    change = _interval(found["change"])
    verdict = "did not change measurably"
    if change.low > 0:
        verdict = "rose"
    elif change.high < 0:
        verdict = "fell"
    before, after = (shown(_interval(found[when])) for when in ("before", "after"))
    text = f"{name} {verdict}: {signed(change)}, from {before} to {after}"
    if any(found["failures"]):
        text += "; {:.1%} of its values failed before and {:.1%} after".format(*found["failures"])
    if found["left_out"]:
        text += f"; {found['left_out']} prompts had none and are left out"
    return text + "."


def table(summary: Mapping[str, Any]) -> str:
    """Each run as a line of Markdown for each measure."""
    lines = ["| run | measure | before | after | change | failed before, after |", "|---" * 6 + "|"]
    for run_name, measures in summary["runs"].items():
        for name, found in measures.items():
            cells = ["unknown"] * 3
            if "change" in found:
                cells = [shown(_interval(found[when])) for when in ("before", "after")]
                cells.append(signed(_interval(found["change"])))
            failed = "{:.1%}, {:.1%}".format(*found["failures"])
            lines.append(f"| {run_name} | {name} | {' | '.join(cells)} | {failed} |")
    return "\n".join([*lines, "", *(f"- {sentence}" for sentence in summary["in_words"])])


def picture(results: Sequence[dict[str, Any]], summary: Mapping[str, Any], file: Path) -> None:
    """The reward during training, and each measure before and after with its intervals."""
    # No pyplot: its figures are global, and it wants a display.
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = [*next(iter(summary["runs"].values()))]
    with mpl.rc_context({"font.size": 9, "axes.titlesize": 9}):
        figure = Figure(figsize=(3.4 * (1 + len(names)), 3.2), layout="constrained")
        FigureCanvasAgg(figure)
        first, *others = figure.subplots(1, 1 + len(names))
        for result, colour in zip(results, COLOURS * len(results), strict=False):
            _training_line(first, result, colour)
        first.set(title=f"{summary['proxy']} in training", xlabel="step")
        for axes, name in zip(others, names, strict=True):
            _before_and_after(axes, name, summary["runs"])
        for axes in (first, *others):
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(color="#e4e4e4", linewidth=0.6)
        others[-1].legend(frameon=False, fontsize=8)
        figure.savefig(file, dpi=160)


def _training_line(axes: Any, result: Mapping[str, Any], colour: str) -> None:
    """The mean of each step, thin, and that of ten steps around it."""
    steps = np.array([entry["step"] for entry in result["log"]])
    rewards = np.array([entry["reward"] for entry in result["log"]], dtype=np.float64)
    axes.plot(steps, rewards, color=colour, alpha=0.25, linewidth=0.8)
    width = min(10, len(steps))
    smooth = np.convolve(rewards, np.full(width, 1 / width), "valid")
    places = np.convolve(steps, np.full(width, 1 / width), "valid")
    axes.plot(places, smooth, color=colour, linewidth=1.5, label=f"seed {result['seed']}")


def _before_and_after(axes: Any, name: str, runs: Mapping[str, Any]) -> None:
    for i, (run_name, measures) in enumerate(runs.items()):
        if "change" not in measures[name]:
            continue
        before, after = (measures[name][when] for when in ("before", "after"))
        colour = "#000000" if run_name == "all seeds" else COLOURS[i % len(COLOURS)]
        places = np.array([0.0, 1.0]) + 0.05 * (i - (len(runs) - 1) / 2)
        means = [before["mean"], after["mean"]]
        axes.plot(places, means, "o-", color=colour, markersize=4, linewidth=1, label=run_name)
        lows, highs = [before["low"], after["low"]], [before["high"], after["high"]]
        axes.vlines(places, lows, highs, color=colour)
    *_, last = runs.values()
    change = f": {signed(_interval(last[name]['change']))}" if "change" in last[name] else ""
    axes.set(title=f"{name}, held out{change}", xlim=(-0.4, 1.4))
    axes.set_xticks([0, 1], ["before", "after"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", type=Path)
    args = parser.parse_args()
    try:
        recipe = checked(Recipe, read_mapping(args.recipe), f"the recipe {args.recipe}")
        print(table(run(recipe)))
    except BestOfNError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
