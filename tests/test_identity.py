"""What results depend on, and what differs between two of them."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import ScriptedEngine
from faulty_server import FaultyServer

from bestofn import FLIPReward, identity
from bestofn.engines.base import load_engine
from bestofn.engines.identity import Described, same_engine, same_url
from bestofn.identity import (
    UNKNOWN,
    as_json,
    completed,
    differences,
    files_fingerprint,
    identity_of,
)
from bestofn.rewards.base import reward_identity
from bestofn.rewards.baselines import Longest, Majority
from bestofn.rewards.gold import Gold
from bestofn.rewards.similarity import f1
from bestofn.stopping import ExpectedGain
from bestofn.verifiers.base import Exact


def test_differences_are_phrases() -> None:
    before = {"n": 2, "reward": {"kind": "Flip", "samples": 1, "template": "content:a"}, "gone": 1}
    now = {"n": 2, "reward": {"kind": "Flip", "samples": 4, "template": "content:b"}, "new": "x"}
    assert differences(before, now) == [
        "reward.samples was 1 and is 4",
        "reward.template has other content",
        "gone was 1 and is null",
        'new was null and is "x"',
    ]
    other = {"reward": {"kind": "Judge", "orders": 3}}
    assert differences({"reward": before["reward"]}, other) == ['reward was "Flip" and is "Judge"']


def test_what_is_unknown_differs_from_nothing_and_is_filled_in() -> None:
    before, now = {"a": {"weights": UNKNOWN}}, {"a": {"weights": "commit:1"}, "b": 2}
    assert differences(before["a"], now["a"]) == differences(now["a"], before["a"]) == []
    assert completed(before, now) == now
    assert completed(now, before) == now


@pytest.mark.parametrize("whole", [1 << 30, 10])
def test_files_are_told_apart_by_name_size_and_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: int
) -> None:
    monkeypatch.setattr(identity, "WHOLE", whole)
    monkeypatch.setattr(identity, "BLOCK", 8)
    monkeypatch.setattr(identity, "BLOCKS", 4)
    seen = set()
    for name, content in [("a", b"x" * 999), ("b", b"x" * 999), ("a", b"x" * 998)]:
        (tmp_path / name).write_bytes(content)
        seen.add(files_fingerprint([tmp_path / name]))
    for place in (0, 330, 998):
        content = bytearray(b"x" * 999)
        content[place : place + 1] = b"y"
        (tmp_path / "a").write_bytes(content)
        seen.add(files_fingerprint([tmp_path / "a"]))
    assert len(seen) == 6


def answer(prompt: str, n: int) -> list[str]:
    return ["yes"] * n


def test_a_function_is_known_by_its_name_and_a_class_too() -> None:
    assert identity_of(answer)["kind"] == f"{__name__}.answer"
    assert identity_of(ScriptedEngine()) == {"kind": "fakes.ScriptedEngine", "name": "scripted"}
    assert identity_of(str.strip) == {"kind": "str.strip"}


def test_parts_of_rewards_count() -> None:
    verifiers = [Gold(Exact("a")), Gold(Exact("b"))]
    sums = [Longest() + 0.5 * verifiers[0], Longest() + 0.25 * verifiers[0]]
    assert differences(*(r.identity() for r in verifiers)) == ['verifier.column was "a" and is "b"']
    assert differences(*(r.identity() for r in sums)) == ["terms.1.weight was 0.5 and is 0.25"]
    votes = [Majority(), Majority(str.lower)]
    assert differences(*(r.identity() for r in votes)) == [
        'answer was "str.strip" and is "str.lower"'
    ]


@pytest.mark.parametrize(
    "url",
    [
        "http://LOCALHOST:8000/v1",
        "http://127.0.0.1:8000/v1/",
        "http://[::1]:8000/v1",
        "http://me:secret@localhost:8000/v1",
    ],
)
def test_a_server_has_one_spelling(url: str) -> None:
    assert same_url(url) == "http://localhost:8000/v1"
    assert same_engine(f"openai:{url}#m") == "openai:http://localhost:8000/v1#m"
    assert same_url("https://Host.example:443/v1/") == same_url("https://host.example/v1")


def test_views_and_arguments_of_an_engine_count_but_not_its_memory() -> None:
    tiny, other = (load_engine("tiny", kv_cache_gib=gib) for gib in (0.1, 0.2))
    assert identity_of(tiny) == identity_of(other) == Described("hf:tiny").identity()
    view = tiny.with_options(chat_template_kwargs={"thinking": True})
    assert identity_of(view) != identity_of(tiny)


def test_a_loaded_server_is_what_its_configuration_says() -> None:
    with FaultyServer(models=("model", "org/adapter")) as server:
        options = {"api_key": "sk-secret-1", "timeout": 3, "headers": {"X": "sk-secret-2"}}
        engine = load_engine(server.spec, **options)
        assert identity_of(engine) == Described(server.spec, options).identity()
        assert "secret" not in json.dumps(identity_of(engine))
        adapted = engine.with_options(lora="org/adapter", guided=True)
        assert set(differences(identity_of(engine), identity_of(adapted))) == {
            'model was "model" and is "org/adapter"',
            "guided was null and is true",
        }
        engine.close()


def test_an_adapter_is_its_content(tmp_path: Path) -> None:
    for name, content in {"a": "{}", "b": "{}", "c": "{} "}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "adapter_config.json").write_text(content)
    a, b, c = (Described("vllm:tiny", {}, {"lora": str(tmp_path / n)}).identity() for n in "abc")
    assert a == b
    assert differences(a, c) == ["lora has other content"]


def test_a_model_of_the_hub_is_its_commit(tmp_path: Path) -> None:
    spec, args = "hf:org/name", {"cache_dir": str(tmp_path)}
    assert Described(spec, args).identity()["weights"] == UNKNOWN
    folder = tmp_path / "models--org--name"
    for place in ("refs", "snapshots/abc"):
        (folder / place).mkdir(parents=True)
    (folder / "refs/main").write_text("abc")
    (folder / "snapshots/abc/config.json").write_text("{}")
    assert Described(spec, args).identity()["weights"] == "commit:abc"
    other = Described(spec, {**args, "revision": "v2"}).identity()
    assert other["weights"] == UNKNOWN
    assert differences(Described(spec, args).identity(), other) == ['revision was null and is "v2"']


def test_what_json_does_not_know_is_put_down_by_its_text_or_name() -> None:
    settings = {"dtype": torch.float16, "function": answer, "engine": ScriptedEngine()}
    assert as_json(settings) == {
        "dtype": "torch.float16",
        "function": f"{__name__}.answer",
        "engine": "fakes.ScriptedEngine",
    }


def test_what_is_bound_to_a_function_counts() -> None:
    first, second = (identity_of(partial(f1, target=text)) for text in ("a", "b"))
    assert first != second
    assert first == identity_of(partial(f1, target="a"))


def test_functions_of_ones_own_are_told_apart() -> None:
    def similarity(function: Any) -> Any:
        return FLIPReward(ScriptedEngine(), similarity=function).identity()["similarity"]

    assert similarity(lambda a, b: 1.0) != similarity(lambda a, b: 2.0)
    assert similarity("f1") == "f1"


@pytest.mark.parametrize(
    ("other", "counts"),
    [
        ({"similarity": "rouge_l"}, True),
        ({"samples": 2, "temperature": 0.5}, True),
        ({"max_tokens": 9}, True),
        ({"template": "reasoned"}, True),
        ({"copy_guard": "strip"}, True),
        ({"seed": 1}, False),  # of greedy inferences
    ],
)
def test_arguments_of_a_reward_count(other: dict[str, Any], counts: bool) -> None:
    before, now = (FLIPReward(ScriptedEngine(), **o).identity() for o in ({}, other))
    assert bool(differences(before, now)) is counts


def test_a_stop_rule_counts_with_its_prior() -> None:
    rules = [ExpectedGain(0.1), ExpectedGain(0.1, weight=2), ExpectedGain(0.1, prior=[0, 1])]
    rules += [ExpectedGain(0.1, prior=[0.5, 1]), ExpectedGain(0.2)]
    assert len({json.dumps(rule.identity()) for rule in rules}) == 5
    assert ExpectedGain(0.1, prior=[1, 0]).identity() == rules[2].identity()


@pytest.mark.parametrize(
    ("args", "counts"),
    [
        ({"gpu_memory_utilization": 0.5, "tensor_parallel_size": 2}, False),
        ({"dtype": "float16"}, True),
        ({"quantization": "fp8"}, True),
    ],
)
def test_an_argument_counts_if_it_changes_numbers(args: dict[str, Any], counts: bool) -> None:
    plain = Described("vllm:tiny").identity()
    assert (Described("vllm:tiny", args).identity() != plain) is counts


def test_what_a_template_decides_is_unknown_until_the_model_is_there() -> None:
    engine = Described("hf:nobody/no-such-model")
    found = reward_identity("flip", engine=engine)
    assert (found["template"], found["max_tokens"]) == (UNKNOWN, UNKNOWN)
    assert reward_identity("flip", engine=engine, max_tokens=99)["max_tokens"] == 99
    assert reward_identity("flip", engine=engine, template="opened")["max_tokens"] == 64
    assert "max_tokens" not in reward_identity("flip-likelihood", engine=engine)
