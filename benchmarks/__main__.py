"""`python -m benchmarks`: every benchmark, or the one named. Writes `results/*.json` and `docs/performance.md`."""

from __future__ import annotations

import asyncio
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import structlog
import torch
import typer

from benchmarks import ranking as ranking_benchmark
from benchmarks import service as service_benchmark
from benchmarks.questions import Questionnaire
from benchmarks.results import markdown, save
from models.llm.loading import EMBEDDED

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

BundleOption = Annotated[Path, typer.Option(help="Whose users and items the questions are about.")]
SeedOption = Annotated[int, typer.Option(help="Draws users and candidates.")]
ThreadsOption = Annotated[int | None, typer.Option(help="torch's threads; its own choice if not given.")]
DEMO = Path("bundles/demo")


@app.callback(invoke_without_command=True)
def every(context: typer.Context) -> None:
    """Run all benchmarks with their defaults."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(30))
    if context.invoked_subcommand is None:
        ranking()
        service()


@app.command()
def ranking(
    bundle: BundleOption = DEMO,
    llm: Annotated[str, typer.Option(help="The LLM, which must be the bundle's in token size.")] = EMBEDDED,
    dtypes: Annotated[str, typer.Option(help="Comma-separated.")] = "float32,bfloat16",
    concurrencies: Annotated[str, typer.Option(help="Comma-separated.")] = "1,4,16",
    questions: Annotated[int, typer.Option(help="Different prompts; a round asks half of them.")] = 96,
    rounds: Annotated[int, typer.Option(help="Counted rounds.")] = 5,
    candidates: Annotated[int, typer.Option(help="Titles to rank.")] = 20,
    seed: SeedOption = 0,
    threads: ThreadsOption = None,
) -> None:
    """Published way against our engines."""
    if threads is not None:
        torch.set_num_threads(threads)
    asked = Questionnaire(bundle, llm).ask(questions, candidates, seed)
    lengths = [len(each.question.prompt.token_ids) for each in asked]
    branches = [len(each.question.trie.branches) for each in asked]
    rows = []
    for dtype in dtypes.split(","):
        levels = [int(level) for level in concurrencies.split(",")]
        with_vllm = find_spec("vllm") is not None
        rows += asyncio.run(ranking_benchmark.measure(llm, dtype, asked, levels, rounds, with_vllm))
    settings = {
        "llm": llm,
        "candidates": candidates,
        "prompts": questions,
        "prompt_tokens_mean": sum(lengths) / len(lengths),
        "branching_nodes_mean": sum(branches) / len(branches),
        "rounds": rounds,
        "seed": seed,
        "threads": torch.get_num_threads(),
    }
    save("ranking", settings, rows)
    typer.echo(markdown(rows))


@app.command()
def service(
    bundle: BundleOption = DEMO,
    engine: Annotated[str, typer.Option(help="transformers or vllm.")] = "transformers",
    dtype: Annotated[str, typer.Option(help="Of the LLM.")] = "float32",
    questions: Annotated[int, typer.Option(help="Different requests in a round.")] = 128,
    concurrency: Annotated[int, typer.Option(help="Clients at saturation.")] = 16,
    rounds: Annotated[int, typer.Option(help="Counted rounds.")] = 5,
    candidates: Annotated[int, typer.Option(help="Titles to rank.")] = 20,
    seed: SeedOption = 0,
    threads: ThreadsOption = None,
) -> None:
    """HTTP against the engine called directly."""
    if threads is not None:
        torch.set_num_threads(threads)
    asked = Questionnaire(bundle, EMBEDDED).ask(questions, candidates, seed)
    rows = service_benchmark.measure(bundle, engine, dtype, asked, concurrency, rounds, seed)
    settings = {"engine": engine, "dtype": dtype, "rounds": rounds, "seed": seed, "threads": torch.get_num_threads()}
    save("service", settings, rows)
    typer.echo(markdown(rows))


if __name__ == "__main__":
    app()
