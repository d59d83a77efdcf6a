"""Scalar reward models on transformers, against the plain model one sequence at a time."""

import asyncio
import json
import shutil
import threading
from collections.abc import Iterator, Sequence
from math import isnan
from pathlib import Path
from typing import Any

import pytest
import torch
from reward_models import random_model
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from typer.testing import CliRunner

from bestofn import ScalarReward, concurrency
from bestofn.cli import app
from bestofn.config import ScoreConfig, SelectConfig, checked
from bestofn.dataset.select import check
from bestofn.errors import ConfigError, EngineError
from bestofn.prompts import as_prompt
from bestofn.rewards.base import is_pointwise, load_reward, needs_engine
from bestofn.store import pool
from bestofn.tiny import heldout_tasks
from bestofn.types import Candidate, Pool, Score

PROMPT = as_prompt([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi."}])
TEXTS = ["Hi.", "Apple, plum.", "Dear Ben, here is the hammer. " * 3, "x " * 40, "5", "no " * 9]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_model(tmp_path_factory.mktemp("random"))


@pytest.fixture(scope="module")
def reward(folder: Path) -> Iterator[ScalarReward]:
    loaded = ScalarReward(folder, device="cpu", batch_size=8)
    yield loaded
    loaded.close()


def changed(folder: Path, copy: Path, **config: Any) -> Path:
    """A copy of a model with another configuration."""
    shutil.copytree(folder, copy, dirs_exist_ok=True)
    known = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(known | config))
    return copy


def scored(reward: ScalarReward, texts: Sequence[str]) -> list[Score]:
    drawn = [Candidate(index, text) for index, text in enumerate(texts)]
    return concurrency.run(reward.score(PROMPT, drawn))


def ids_of(folder: Path, text: str) -> list[int]:
    turns = [{"role": message.role, "content": message.content} for message in PROMPT.messages]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    encoded = tokenizer.apply_chat_template([*turns, {"role": "assistant", "content": text}])
    ids: list[int] = encoded["input_ids"]
    return ids


def plain(folder: Path, texts: Sequence[str]) -> list[float]:
    """What the model says of one sequence at a time."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.inference_mode():
        return [model(torch.tensor([ids_of(folder, text)])).logits.item() for text in texts]


class Gate:
    """Holds a classifier's batches until it is opened, and keeps what was in them."""

    def __init__(self, classifier: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.batches: list[list[int]] = []
        self.opened, self.entered = threading.Event(), threading.Event()
        forward = classifier._worker.forward

        def gated(rows: Sequence[Sequence[int]]) -> Any:
            self.batches.append([len(row) for row in rows])
            self.entered.set()
            assert self.opened.wait(timeout=60)
            return forward(rows)

        monkeypatch.setattr(classifier._worker, "forward", gated)

    async def until_entered(self) -> None:
        while not self.entered.is_set():
            await asyncio.sleep(0.001)


@pytest.fixture
def gate(reward: ScalarReward, monkeypatch: pytest.MonkeyPatch) -> Gate:
    return Gate(reward.classifier, monkeypatch)


# --- values ---------------------------------------------------------------------------------------


# The embedded model's padding, the token that ends an answer, none, and one out of range.
@pytest.mark.parametrize("pad", [0, 1, None, -1])
def test_padded_batches_give_the_plain_models_logits(
    folder: Path, tmp_path: Path, pad: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = changed(folder, tmp_path, pad_token_id=pad)
    reward = ScalarReward(copy, device="cpu", batch_size=4)
    gate = Gate(reward.classifier, monkeypatch)
    gate.opened.set()
    texts = [text + mark for text in TEXTS for mark in ("", "!", " ok")]
    scores = scored(reward, texts)
    assert [score.value for score in scores] == pytest.approx(plain(copy, texts), abs=1e-5)
    assert any(len(set(batch)) > 1 for batch in gate.batches)  # something was padded
    assert max(map(len, gate.batches)) <= 4
    assert len({score.value for score in scores}) == len(texts)
    reward.close()


# --- failures are data ----------------------------------------------------------------------------


def test_nothing_is_truncated(folder: Path) -> None:
    length = len(ids_of(folder, "Hi."))
    exact, short = (ScalarReward(folder, max_length=length - less) for less in (0, 1))
    assert scored(exact, ["Hi."])[0].value == pytest.approx(plain(folder, ["Hi."])[0], abs=1e-5)
    (score,) = scored(short, ["Hi."])
    assert isnan(score.value)
    assert score.reason == f"too long: {length} tokens, over {length - 1}"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            ZeroDivisionError("by nothing\nat all"),
            "the model failed: ZeroDivisionError: by nothing",
        ),
        (torch.OutOfMemoryError("tried to allocate"), "lower batch_size"),
    ],
)
def test_a_model_that_fails(
    reward: ScalarReward, error: Exception, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(rows: object) -> list[float]:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(reward.classifier._worker, "forward", fails)
        scores = scored(reward, TEXTS)
    assert all(isnan(score.value) and said in str(score.reason) for score in scores)
    assert not isnan(scored(reward, ["Hi."])[0].value)  # the next ones are not affected


# --- many at once ---------------------------------------------------------------------------------


def test_what_waits_shares_batches_of_similar_length(reward: ScalarReward, gate: Gate) -> None:
    texts = ["a", *["word " * 60, "b"] * 8]

    async def all_at_once() -> list[Score]:
        tasks = [
            asyncio.ensure_future(reward.score(PROMPT, [Candidate(i, text)]))
            for i, text in enumerate(texts)
        ]
        await gate.until_entered()
        for _ in range(3):
            await asyncio.sleep(0)  # the event loop goes on while the model runs
        gate.opened.set()
        return [score for scores in await asyncio.gather(*tasks) for score in scores]

    scores = concurrency.run(all_at_once())
    assert not any(isnan(score.value) for score in scores)
    assert sum(map(len, gate.batches)) == len(texts)
    assert len(gate.batches) <= 4
    assert all(max(batch) - min(batch) < 16 for batch in gate.batches)


def test_closing_fails_what_waits(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reward = ScalarReward(folder, device="cpu")
    gate = Gate(reward.classifier, monkeypatch)

    async def closed_meanwhile() -> list[Score]:
        tasks = []
        for text in ["a", "b"]:
            score = reward.score(PROMPT, [Candidate(0, text)])
            tasks.append(asyncio.ensure_future(score))
            await gate.until_entered()
        await asyncio.sleep(0.01)
        closing = asyncio.ensure_future(asyncio.to_thread(reward.close))
        await asyncio.sleep(0.01)
        gate.opened.set()
        await closing
        return [score for scores in await asyncio.gather(*tasks) for score in scores]

    running, waiting = concurrency.run(closed_meanwhile())
    assert not isnan(running.value)
    assert waiting.reason == "engine: the reward model is closed"
    (late,) = scored(reward, ["c"])
    assert late.reason == "engine: the reward model is closed; load it again"
    reward.close()  # a second time does nothing


# --- models that are none -------------------------------------------------------------------------


def test_a_language_model_is_no_reward_model() -> None:
    said = r"has 2 labels and a scalar reward needs one \(it is a LlamaForCausalLM\)"
    with pytest.raises(EngineError, match=said):
        ScalarReward("tiny")
    with pytest.raises(EngineError, match=r"no weights for score\.weight"):
        ScalarReward("tiny", num_labels=1)


def test_models_that_cannot_be_loaded(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="has 3 labels and a scalar reward needs one"):
        ScalarReward(random_model(tmp_path, num_labels=3))
    with pytest.raises(EngineError, match="there is no such folder"):
        ScalarReward("./no-such-model")
    with pytest.raises(EngineError, match="bach_size"):
        ScalarReward(folder, bach_size=2)
    copy = changed(folder, tmp_path / "copy")
    (copy / "chat_template.jinja").unlink()
    with pytest.raises(EngineError, match="has no chat template; save the one"):
        ScalarReward(copy)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
        ({"max_length": 0}, "max_length must be at least 1, not 0"),
        ({"backend": "onnx"}, "no backend 'onnx'; use 'transformers', 'vllm'"),
    ],
)
def test_options_that_make_no_sense(folder: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        ScalarReward(folder, **options)


# --- by name --------------------------------------------------------------------------------------


def test_it_has_a_name(folder: Path) -> None:
    assert is_pointwise("scalar")
    assert not needs_engine("scalar")
    reward = load_reward("scalar", model=str(folder), name="skill", batch_size=2)
    assert isinstance(reward, ScalarReward)
    assert reward.name == "skill"
    with pytest.raises(ConfigError, match="'model'"):
        load_reward("scalar")


def test_a_model_in_the_name() -> None:
    config = checked(ScoreConfig, {"rewards": ["flip", "scalar:org/model:v1"]}, "here")
    assert [reward.label for reward in config.rewards] == ["flip", "scalar"]
    assert config.rewards[1].options == {"model": "org/model:v1"}
    fields: dict[str, Any] = {"prompts": "tiny:1", "engine": "tiny", "reward": "scalar:m"}
    fields["reward_options"] = {"batch_size": 2}
    selecting = checked(SelectConfig, fields, "here")
    check(selecting)
    assert selecting.reward == "scalar"
    assert selecting.reward_options == {"model": "m", "batch_size": 2}


def test_on_the_command_line(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "pool.jsonl"
    rows = [
        Pool(as_prompt(task.instruction, str(number)), [Candidate(0, TEXTS[number])])
        for number, task in enumerate(heldout_tasks(3))
    ]
    rows[0].candidates.append(Candidate(1, " "))
    path.write_text("".join(pool.dumps(row) + "\n" for row in rows))
    result = CliRunner().invoke(app, ["score", str(path), "--reward", f"scalar:{folder},longest"])
    assert result.exit_code == 0, result.output
    reward = ScalarReward(folder, device="cpu")
    for row in pool.read(path):
        expected = concurrency.run(reward.score(row.prompt, row.candidates))
        given = [candidate.scores["scalar"] for candidate in row.candidates]
        values = [score.value for score in expected]
        assert [score.value for score in given] == pytest.approx(values, abs=1e-5, nan_ok=True)
        assert [score.reason for score in given] == [score.reason for score in expected]
    failed = CliRunner().invoke(app, ["score", str(path), "--reward", "scalar:tiny", "--again"])
    assert failed.exit_code == 2
    assert "labels" in failed.output
