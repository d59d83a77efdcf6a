"""Trains the embedded model: tokenizer, both directions of the tiny world, weights.

    python recipes/tiny/train.py recipes/tiny/train.yaml OUT

writes to the folder OUT what `load_engine("hf:OUT")` loads, and OUT/training.json.
"""

import argparse
import json
import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Literal, NamedTuple

import torch
import yaml
from pydantic import BaseModel, ConfigDict
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from torch.nn.functional import cross_entropy, linear
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from bestofn.rewards.templates import Kind, load_judge_template, load_template
from bestofn.tiny import world
from bestofn.tiny.world import Family
from bestofn.types import Prompt

SPECIAL = ["<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
INVERSE = load_template("direct")
KINDS: tuple[Kind, ...] = ("pointwise", "pairwise", "listwise")
JUDGES = {
    kind: load_judge_template(Path(__file__).parent / "judges" / f"{kind}.yaml", kind)
    for kind in KINDS
}
# Words with their space, digits in twos, and the separators that stand before a number.
PIECES = r"[,;:]? (?=\d)| [+\-=x] (?=\d)| ?[A-Za-z]+|\d{1,2}| ?[^A-Za-z\d\s]|\s"


class Phase(BaseModel):
    """A stretch of the run with one mixture."""

    model_config = ConfigDict(extra="forbid")

    until: float
    forward: float
    neighbours: float
    judging: float = 0.0


class Recipe(BaseModel):
    """What train.yaml holds; the comments there say what each is."""

    model_config = ConfigDict(extra="forbid")

    seed: int
    start: Path | None = None
    width: int
    layers: int
    feed_forward: int
    context: int
    phases: list[Phase]
    batch_tokens: int
    steps: int
    warmup: int
    decay: float
    muon_lr: float
    adam_lr: float
    weight_decay: float
    precision: Literal["float32", "bfloat16"]
    device: str
    tokenizer_examples: int
    tokenizer_min_count: int


class Example(NamedTuple):
    """A conversation of the training set: what is given, and the answer to be learnt."""

    prompt: str
    answer: str


def draw_example(rng: Random, phase: Phase) -> Example:
    if phase.judging and rng.random() < phase.judging:
        return judge_example(rng)
    task = world.draw(rng, "train")
    if rng.random() >= phase.forward:
        return asked(INVERSE.fill(world.answer(task, rng)), task.instruction)
    prompt = f"<|user|>{task.instruction}<|end|><|assistant|>"
    if rng.random() < phase.neighbours:
        task = world.Task(task.family, neighbour(task, rng), "")
    return Example(prompt, f"{world.answer(task, rng)}<|end|>")


def asked(question: Prompt, answer: str) -> Example:
    turns = "".join(f"<|{message.role}|>{message.content}<|end|>" for message in question.messages)
    return Example(f"{turns}<|assistant|>", f"{answer}<|end|>")


def judge_example(rng: Random) -> Example:
    """A right answer to be told from wrong ones, in one of the three ways of asking a judge."""
    task = world.draw(rng, "train")
    right, kind = world.answer(task, rng), rng.choice([*JUDGES])
    template = JUDGES[kind]
    if kind == "pointwise":
        grade, response = (10, right) if rng.random() < 0.5 else (1, wrong_answer(task, rng))
        question = template.fill(prompt=task.instruction, response=response)
        return asked(question, json.dumps({template.field: grade}))
    shown = [right, *(wrong_answer(task, rng) for _ in range(1 if kind == "pairwise" else 3))]
    rng.shuffle(shown)
    place = shown.index(right)
    if kind == "pairwise":
        question = template.fill(prompt=task.instruction, response1=shown[0], response2=shown[1])
        return asked(question, json.dumps({template.field: "AB"[place]}))
    question = template.fill(prompt=task.instruction, response_list=template.listed(shown))
    return asked(question, json.dumps({template.field: place + template.first_number}))


def wrong_answer(task: world.Task, rng: Random) -> str:
    """A right answer to a neighbouring task, or to another one of the same family."""
    family = world.FAMILIES[task.family]
    while True:
        near = rng.random() < 0.5
        slots = neighbour(task, rng) if near else world.draw(rng, "train", task.family).slots
        answer = family.answer(slots, rng)
        if not family.verify(task.slots, answer):
            return answer


def neighbour(task: world.Task, rng: Random) -> dict[str, str]:
    """Slots of the same family and split that differ from the task's in one slot."""
    family, split = world.FAMILIES[task.family], world.split_of(task.family, task.slots)
    while True:
        slots = dict(task.slots)
        name = rng.choice([*slots])
        other = family.draw(rng)[name]
        if slots[name].isdigit() and rng.random() < 0.6:
            slots[name] = str(max(1, int(slots[name]) + rng.choice([-3, -2, -1, 1, 2, 3])))
        elif ", " in slots[name] and rng.random() < 0.8:
            slots[name] = near_list(slots[name].split(", "), other.split(", ")[0], rng)
        else:
            slots[name] = other
        if (
            slots != task.slots
            and fits(family, slots)
            and world.split_of(task.family, slots) == split
        ):
            return slots


def near_list(values: list[str], other: str, rng: Random) -> str:
    """The values with one of them replaced or dropped, or two exchanged."""
    i, j = rng.sample(range(len(values)), 2)
    change = rng.choice(["replace", "drop", "exchange"])
    if change == "replace":
        values[i] = other
    elif change == "drop":
        del values[i]
    else:
        values[i], values[j] = values[j], values[i]
    return ", ".join(dict.fromkeys(values))


def fits(family: Family, slots: dict[str, str]) -> bool:
    """Whether each slot has its form and together they make sense."""
    return all(
        re.fullmatch(slot.pattern, slots[name]) for name, slot in family.slots.items()
    ) and family.valid(slots)


def build_tokenizer(recipe: Recipe) -> PreTrainedTokenizerFast:
    """Whole words of the world as pieces, single characters and bytes for everything else."""
    rng = Random(f"tokenizer {recipe.seed}")
    splitter = pre_tokenizers.Split(Regex(PIECES), "isolated")
    counts = Counter[str]()
    for _ in range(recipe.tokenizer_examples):
        text = "".join(draw_example(rng, recipe.phases[0]))
        for special in SPECIAL:
            text = text.replace(special, "\n")
        counts.update(piece for piece, _ in splitter.pre_tokenize_str(text))
    words = sorted(piece for piece, count in counts.items() if count >= recipe.tokenizer_min_count)
    characters = [chr(code) for code in range(32, 127)] + ["\n"]
    pieces = list(dict.fromkeys(SPECIAL + characters + words))
    # Scores only have to prefer one whole piece to several short ones.
    vocabulary = [(piece, -1.0 if len(piece) > 1 else -4.0) for piece in pieces]
    vocabulary += [(f"<0x{byte:02X}>", -20.0) for byte in range(256)]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=0, byte_fallback=True))
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens(SPECIAL)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",
        eos_token="<|end|>",
        chat_template=CHAT_TEMPLATE,
        model_max_length=recipe.context,
        clean_up_tokenization_spaces=False,
    )


class Batch(NamedTuple):
    """Token ids `[rows, length]`, right-padded, and labels of the same shape (-100: not learnt)."""

    ids: torch.Tensor
    labels: torch.Tensor


def batches(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> Iterator[Batch]:
    """Batches of about `batch_tokens` tokens, of similar lengths within each."""
    rng = Random(f"examples {recipe.seed}")
    step = 0
    while step < recipe.steps:
        phase = next(phase for phase in recipe.phases if step <= phase.until * recipe.steps)
        examples = [draw_example(rng, phase) for _ in range(4096)]
        prompts = tokenizer([example.prompt for example in examples]).input_ids
        answers = tokenizer([example.answer for example in examples]).input_ids
        rows = sorted(zip(prompts, answers, strict=True), key=lambda row: len(row[0] + row[1]))
        groups: list[list[tuple[list[int], list[int]]]] = [[]]
        for row in rows:
            if len(row[0] + row[1]) > recipe.context:
                continue
            if sum(len(p + a) for p, a in groups[-1]) >= recipe.batch_tokens:
                groups.append([])
            groups[-1].append(row)
        rng.shuffle(groups)
        for group in groups:
            yield collate(group, tokenizer.pad_token_id)
        step += len(groups)


def collate(rows: list[tuple[list[int], list[int]]], pad: int) -> Batch:
    length = max(len(prompt + answer) for prompt, answer in rows)
    ids = torch.full((len(rows), length), pad)
    labels = torch.full((len(rows), length), -100)
    for index, (prompt, answer) in enumerate(rows):
        ids[index, : len(prompt + answer)] = torch.tensor(prompt + answer)
        labels[index, len(prompt) : len(prompt + answer)] = torch.tensor(answer)
    return Batch(ids, labels)


def build_model(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    torch.manual_seed(recipe.seed)
    if recipe.start is not None:
        return LlamaForCausalLM.from_pretrained(recipe.start, dtype=torch.float32)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=recipe.width,
            intermediate_size=recipe.feed_forward,
            num_hidden_layers=recipe.layers,
            num_attention_heads=recipe.width // 32,
            num_key_value_heads=recipe.width // 32,
            max_position_embeddings=recipe.context,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def answer_loss(model: LlamaForCausalLM, batch: Batch) -> torch.Tensor:
    """Mean cross-entropy of the answer tokens; logits are computed for these alone."""
    hidden = model.model(input_ids=batch.ids).last_hidden_state[:, :-1]
    labels = batch.labels[:, 1:]
    learnt = labels != -100
    logits = linear(hidden[learnt], model.lm_head.weight)
    return cross_entropy(logits.float(), labels[learnt])


def learning_rate(recipe: Recipe, step: int) -> float:
    """The share of the full rate: linear warm-up, constant, linear decay."""
    left = (recipe.steps - step) / (recipe.decay * recipe.steps)
    return min(1.0, (step + 1) / recipe.warmup, left)


def train(recipe: Recipe, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    device = recipe.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    model = build_model(recipe, tokenizer).to(device)
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    optimisers = [
        torch.optim.Muon(matrices, lr=recipe.muon_lr, weight_decay=recipe.weight_decay),
        torch.optim.AdamW(others, lr=recipe.adam_lr, weight_decay=0.0, betas=(0.9, 0.95)),
    ]
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: learning_rate(recipe, step))
        for optimiser in optimisers
    ]
    precision = getattr(torch, recipe.precision)
    started, tokens, log = time.monotonic(), 0, []
    smooth = None
    bar = tqdm(range(recipe.steps), mininterval=5)
    for step, batch in zip(bar, batches(recipe, tokenizer), strict=False):
        batch = Batch(*(tensor.to(device) for tensor in batch))
        with torch.autocast(device, precision, enabled=recipe.precision != "float32"):
            loss = answer_loss(model, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for part in (*optimisers, *schedules):
            part.step()
        model.zero_grad()
        tokens += int((batch.ids != tokenizer.pad_token_id).sum())
        smooth = loss.item() if smooth is None else 0.98 * smooth + 0.02 * loss.item()
        if step % 100 == 99:
            seconds = time.monotonic() - started
            log.append(
                {
                    "step": step + 1,
                    "tokens": tokens,
                    "seconds": round(seconds),
                    "loss": round(smooth, 4),
                }
            )
            bar.set_postfix(loss=f"{smooth:.3f}", refresh=False)
        if step % 500 == 499 or step + 1 == recipe.steps:
            model.save_pretrained(out)
            report = {
                "parameters": model.num_parameters(),
                "recipe": recipe.model_dump(mode="json"),
                "log": log,
            }
            (out / "training.json").write_text(json.dumps(report, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    recipe = Recipe.model_validate(yaml.safe_load(args.recipe.read_text()))
    args.out.mkdir(parents=True, exist_ok=True)
    if recipe.start is None:
        tokenizer = build_tokenizer(recipe)
    else:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(recipe.start)
    tokenizer.save_pretrained(args.out)
    (args.out / "bestofn.json").write_text(json.dumps({"template": "direct"}) + "\n")
    train(recipe, tokenizer, args.out)


if __name__ == "__main__":
    main()
