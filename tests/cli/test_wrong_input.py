"""What is wrong is one sentence with exit code 2, before a model is loaded; nothing is lost."""

from pathlib import Path

import pytest
from commands import SMALL, TINY, bestofn, done, lines, refused, rows_of
from making import made, written

from bestofn.store.pool import read_origins

ASK, DEMO = ["ask", "x"], ["demo"]
SELECT = ["select", *TINY, "-o", "out.jsonl"]
SAMPLE = ["sample", *TINY, "-o", "out.jsonl"]
SCORE = ["score", "pool.jsonl"]
CURVE = ["curve", "pool.jsonl", "-o", "out"]
BENCH = ["rewardbench", "--data", "tiny:2", *TINY, "-o", "out"]
LONGEST = [*BENCH, "--reward", "longest"]
AUDIT = ["audit", "--prompts", "p.jsonl", *TINY]
NO_MODEL = "no model is named; give --engine vllm:MODEL"

pytestmark = pytest.mark.usefixtures("here")


@pytest.fixture(autouse=True)
def _files(here: Path) -> None:
    rows = [made(k, {"longest": [1.0, 2.0], "gold": [0.0, 1.0], "logit": [-1.0, 0]}) for k in "ab"]
    written(here / "pool.jsonl", rows)
    Path("bad.jsonl").write_text('{"prompt": "x"}\n{"prompt": \n')
    lines("blank.jsonl", [{"prompt": "x"}, {"prompt": ""}])
    Path("empty.jsonl").write_text(" \n\n\t\n")
    Path("head.csv").write_text("prompt,answer\n")
    Path("recipe.yaml").write_text(
        "output: o\nsample: {prompts: p.jsonl}\nscore: {rewards: [gold]}\n"
    )
    Path("bench.yaml").write_text("output: out\nrewardbench: {data: 'tiny:1', rewards: [flip]}\n")


@pytest.mark.usefixtures("unloadable")
@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (["ask", ""], "the prompt is empty"),
        ([*ASK, "-n", 0], "the key 'n' is wrong"),
        ([*ASK, "--temperature", -1], "temperature must be at least 0"),
        ([*ASK, "--top-p", 2], "top_p must be above 0"),
        ([*ASK, "--reward", "best"], "no reward 'best'"),
        ([*ASK, "--reward", "gold"], "the reward 'gold' needs a verifier"),
        ([*ASK, "--engine-arg", "rows"], "this option takes NAME=VALUE"),
        ([*DEMO, "-n", 0], "the key 'n' is wrong"),
        ([*DEMO, "--prompts", 0], "the key 'prompts' is wrong"),
        ([*SELECT, "nothing.jsonl"], "nothing.jsonl"),
        (SELECT, "name the input"),
        ([*SELECT, "tiny:2", "--reward", "flop"], "did you mean 'flip'?"),
        ([*SELECT, "tiny:2", "--shard", "3/2"], "shard"),
        ([*SELECT, "tiny:2", "--adaptive", 0, "--reward", "longest"], "--adaptive-prior"),
        ([*SELECT, "tiny:2", "--replicas", 2], "name it (--cluster local)"),
        ([*SELECT, "tiny:2", "--selector", "sofa"], "did you mean 'soft'?"),
        ([*SELECT, "tiny:2", "--selector", "soft=0"], "temperature must be a number above 0"),
        ([*SELECT, "tiny:2", "--selector", "soft=hot"], "temperature must be float"),
        ([*SELECT, "tiny:2", "--selector", "weighted=2"], "takes no value"),
        ([*SELECT, "tiny:2", "--selector", "weighted"], "a vote's weight cannot be negative"),
        ([*SELECT, "tiny:2", "--answer", "math"], "answer does nothing"),
        ([*SELECT, "tiny:2", "--selector", "mob", "--adaptive", 0, "--reward", "flip"], "adaptive"),
        ([*SELECT, "tiny:2", "--reject", 8, "--reward", "longest"], "needs a pointwise reward"),
        ([*SELECT, "tiny:2", "--reject", "8,0"], "each must be at least 1"),
        ([*SELECT, "tiny:2", "--reject-keep", 0.5], "reject_keep does nothing"),
        ([*SELECT, "tiny:2", "--reject", 8, "--reject-keep", 0], "the key 'reject_keep' is wrong"),
        ([*SELECT, "tiny:2", "--reward", "self-certainty"], "reads how certain the model was"),
        ([*SELECT, "tiny:2", "--confidence", 0], "confidence must be"),
        ([*SELECT, "tiny:2", "--confidence", "much"], "confidence must be"),
        ([*SELECT, "tiny:2", "--format", "jsonl"], "name another output"),
        ([*SELECT, "tiny:2", "--keep", "all"], "name the format as well (--format)"),
        ([*SELECT, "tiny:2", "--round-size", 2], "round_size does nothing"),
        ([*SELECT, "tiny:2", "--verifier", "tiny"], "verifier does nothing"),
        ([*SELECT, "tiny:2", "--reward", "first", "--reward-engine", "tiny"], "does nothing"),
        ([*SELECT, "tiny:2", "--reward-engine-arg", "a=1"], "name it"),
        ([*SAMPLE, "tiny:2", "-m", 0], "m must be at least 1, not 0"),
        ([*SAMPLE, "tiny:2", "--limit", 0], "the key 'limit' is wrong"),
        ([*SAMPLE, "bad.jsonl"], "bad.jsonl, line 2: not JSON"),
        ([*SAMPLE, "p.jsonl", "--prompt-column", "question"], "no column 'question'"),
        ([*SAMPLE, "blank.jsonl"], "blank.jsonl, line 2: column 'prompt': the prompt is empty"),
        (["score", "none.jsonl", "--reward", "flip"], "the pool none.jsonl cannot be read"),
        ([*SCORE, "--reward", "flip"], "no model is named; give --engine"),
        ([*SCORE, "--reward", "gold", "--verifier", "nonesuch"], "no verifier 'nonesuch'"),
        ([*SCORE, "--limits", 0], "each must be at least 1"),
        ([*SCORE, "--limits", "4,x"], "the key 'limits.1' is wrong"),
        (["curve", "none.jsonl", "-o", "out"], "the pool none.jsonl cannot be read"),
        ([*CURVE, "--ns", 0], "each must be at least 1"),
        ([*CURVE, "--level", 2], "the key 'level' is wrong"),
        ([*CURVE, "--bad-rows", "z"], "the key 'bad_rows' is wrong"),
        ([*CURVE, "--ns", 5], "2 candidates are too few for N=5"),
        ([*CURVE, "--gold", "truth"], "no score 'truth', only gold, logit, longest"),
        ([*CURVE, "--proxy", "flop"], "has no score 'flop'"),
        ([*CURVE, "--proxy", "weighted:logit"], "have negative values"),
        ([*CURVE, "--proxy", "soft=cold:logit"], "temperature must be float"),
        ([*CURVE, "--proxy", "mob:flop"], "has no score 'flop'"),
        ([*CURVE, "--proxy", "mbr=f2"], "no similarity 'f2'"),
        ([*CURVE, "--answer", "nonesuch"], "no verifier 'nonesuch'"),
        ([*CURVE[:2], *CURVE[1:]], "the same pool is given twice"),
        (["report", "x", "-o", "y", "--embed", 0], "the key 'embed' is wrong"),
        (BENCH, "name at least one reward"),
        ([*LONGEST, "--data", "none.jsonl"], "none.jsonl"),
        (["audit", *TINY], "--prompts is missing"),
        # A user's numbers come from the model that was named, never from the toy by default.
        (["select", "p.jsonl", "-o", "out.jsonl", "--reward-engine", "tiny"], NO_MODEL),
        (["sample", "tiny:2", "-o", "out.jsonl", "--engine-arg", "max_rows=4"], NO_MODEL),
        (["audit", "--prompts", "p.jsonl", "-o", "out"], NO_MODEL),
        (["rewardbench", "--data", "tiny:1", "--reward", "flip", "-o", "out"], NO_MODEL),
        (["run", "recipe.yaml"], NO_MODEL),
        (["run", "bench.yaml"], NO_MODEL),
        ([*SCORE, "--reward", "flip", "--engine-arg", "max_rows=4"], NO_MODEL),
        ([*SCORE, "--reward", "flip", "--engine-option", "guided=true"], NO_MODEL),
        # An input without rows.
        ([*SELECT, "empty.jsonl"], "empty.jsonl holds no prompts"),
        ([*SELECT, "head.csv"], "head.csv holds no prompts"),
        (["audit", "--prompts", "empty.jsonl", *TINY], "empty.jsonl holds no prompts"),
        ([*LONGEST, "--data", "empty.jsonl"], "empty.jsonl holds no items"),
        (["score", "empty.jsonl", "--reward", "first"], "empty.jsonl has no rows"),
        (["curve", "empty.jsonl", "-o", "out", "--limits", 2], "empty.jsonl has no rows"),
        (["export", "empty.jsonl", "-o", "out.csv"], "empty.jsonl holds no rows"),
    ],
)
def test_it_is_one_sentence(command: list[object], sentence: str) -> None:
    before = {path: path.read_bytes() for path in Path().glob("*.*") if path.is_file()}
    result = bestofn(*command)
    assert result.exit_code == 2, result.output
    assert sentence in result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""
    assert all(path.read_bytes() == content for path, content in before.items())
    assert not list(Path("out").glob("*.json"))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--engine", "nonesuch"], "no engine 'nonesuch'"),
        (["--engine", "hf:./nowhere"], "no such folder"),
        (["--engine", "openai:localhost"], "http"),
        (["--engine", "openai:http://x/v1#m", "--engine-arg", "a=1"], "arguments"),
        (["--engine", "openai:http://127.0.0.1:9/v1#m"], "no server answers"),
        (["--engine-arg", "nonesuch=1"], "nonesuch"),
        (["--engine-arg", "dtype=zzz"], "cannot load model"),
        (["--engine-option", "chat_template_kwargs=3"], "does not take the options"),
        (["--reward-engine-option", "chat_template_kwargs=[1]"], "does not take the options"),
        (["--engine-option", "lora=x"], "has no option lora"),
    ],
)
def test_an_engine_that_cannot_be_is_one_sentence(options: list[object], sentence: str) -> None:
    assert sentence in refused(*ASK, "-n", 1, *options)


@pytest.mark.usefixtures("unloadable")
@pytest.mark.parametrize(
    "command",
    [
        [*ASK, "--reward", "flip"],
        [*SELECT, "p.jsonl", "--reward", "flip"],
        [*SCORE, "--reward", "flip"],
        [*CURVE, "--reward", "flip", "--limits", 2],
        [*BENCH, "--reward", "flip"],
        [*AUDIT, "--reward", "flip"],
        ["run", "bench.yaml"],
    ],
)
@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("sample=2", "has an option 'sample'; did you mean 'samples'?"),
        ("flop.samples=2", "no reward is called 'flop'"),
        ("samples", "takes NAME=VALUE"),
    ],
)
def test_an_option_that_no_reward_takes(command: list[object], option: str, sentence: str) -> None:
    assert sentence in refused(*command, "--reward-option", option)


@pytest.mark.parametrize(
    "command",
    [
        ["ask"],
        [*ASK, "-n", "few"],
        ["nonesuch"],
        SAMPLE[:1],
        [*SCORE, "--rewards", "flip"],
        CURVE[:2],
    ],
)
def test_usage_errors(command: list[object]) -> None:
    result = bestofn(*command)
    assert (result.exit_code, "Traceback" in result.output) == (2, False)


@pytest.mark.usefixtures("unloadable")
@pytest.mark.parametrize(
    "command",
    [
        ["rewardbench", "--data", "tiny:1", "--reward", "longest", "-o", "out"],
        ["audit", "--prompts", "p.jsonl", "--honest-column", "answer", "--reward", "longest"],
        ["audit", "--prompts", "tiny:2", "--reward", "longest", "--attack", "quote"],
        [*SCORE, "--reward", "shortest"],
    ],
)
def test_where_no_model_is_needed_none_is_asked_for(command: list[object]) -> None:
    done(*command)


def test_what_drew_a_pool_scores_it() -> None:
    done("sample", "p.jsonl", "-m", 2, "-o", "drawn.jsonl", *SMALL)
    done("score", "drawn.jsonl", "--reward", "flip-likelihood")
    assert read_origins(Path("drawn.jsonl"))["flip-likelihood"]["model"]["engine"] == "tiny"


def test_an_input_that_has_become_empty_and_one_of_bad_rows_alone() -> None:
    done(*SELECT, "p.jsonl", "-n", 1, "--max-tokens", 8)
    Path("p.jsonl").write_text("")
    assert "p.jsonl holds no prompts" in refused(*SELECT, "p.jsonl", "-n", 1, "--max-tokens", 8)
    assert len(rows_of("out.jsonl")) == 2
    bad = ["select", "bad.jsonl", *TINY, "-o", "bad_out.jsonl", "--on-bad-row", "skip"]
    lines("bad.jsonl", [{"prompt": ""}, {"x": 1}])
    said = refused(*bad)
    assert "none of the 2 rows of bad.jsonl can be used; bad_out.jsonl.run/skipped.txt" in said


def test_a_part_of_the_prompts_may_be_empty() -> None:
    lines("one.jsonl", [{"prompt": "Name 2 fruits."}])
    for k in (1, 2):
        done("select", "one.jsonl", "-n", 1, "-o", f"{k}.jsonl", "--shard", f"{k}/2", *SMALL)
