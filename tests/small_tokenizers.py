"""Real tokenizers of a few hundred tokens with the control tokens of larger models."""

import json
from typing import Any

from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from transformers import PreTrainedTokenizerFast

CORPUS = [
    "Explain the weather in Bonn to me, please.",
    "The answer is 42: x != y, <b>so</b> it ends.",
]
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
PLAIN = ["<think>", "</think>", "<tool_call>"]
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] | trim }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_level() -> Any:
    """As Qwen and Llama 3 have it."""
    return _made(Tokenizer(models.BPE()), pre_tokenizers.ByteLevel(False), decoders.ByteLevel())


def lower_case() -> Any:
    """Text is brought to small and narrow letters before its added tokens are looked for."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    return _made(tokenizer, pre_tokenizers.ByteLevel(False), decoders.ByteLevel(), normalized=True)


def metaspace() -> Any:
    """As Llama 2 and Mistral have it: a space in front of each piece, bytes for what is rare."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    return _made(
        tokenizer,
        pre_tokenizers.Metaspace(),
        decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(), decoders.Fuse()]),
        bytes_=[f"<0x{byte:02X}>" for byte in range(256)],
    )


def _made(
    tokenizer: Tokenizer,
    before: Any,
    decoder: Any,
    *,
    normalized: bool = False,
    bytes_: list[str] | None = None,
) -> Any:
    tokenizer.pre_tokenizer, tokenizer.decoder = before, decoder
    own = ["<unk>", *(bytes_ or [])]
    alphabet = [] if bytes_ else pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=own, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS * 4, trainer)
    state = tokenizer.to_str()
    tokenizer = Tokenizer.from_str(_without_added(state))
    tokenizer.add_tokens([AddedToken(t, special=True, normalized=normalized) for t in SPECIAL])
    tokenizer.add_tokens([AddedToken(text, normalized=normalized) for text in PLAIN])
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>")
    made.chat_template = CHATML
    return made


def _without_added(state: str) -> str:
    """The trainer makes its own tokens control tokens; bytes are none."""
    known = json.loads(state)
    known["added_tokens"] = []
    return json.dumps(known)
