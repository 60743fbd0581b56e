"""`python -m benchmarks`: the five that need the demo alone, or the one named. Writes `results/*.json`, and the
documents' tables of the same names.
"""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

import structlog
import torch
import typer

from benchmarks import backbone_scale as backbone_scale_benchmark
from benchmarks import backbones as backbones_benchmark
from benchmarks import blends as blends_benchmark
from benchmarks import claims as claims_benchmark
from benchmarks import disturbed as disturbed_benchmark
from benchmarks import elsewhere as elsewhere_benchmark
from benchmarks import explanations as explanations_benchmark
from benchmarks import filters as filters_benchmark
from benchmarks import genres as genres_benchmark
from benchmarks import importing as import_benchmark
from benchmarks import overload as overload_benchmark
from benchmarks import ranking as ranking_benchmark
from benchmarks import service as service_benchmark
from benchmarks import stage2 as stage2_benchmark
from benchmarks import titles as titles_benchmark
from benchmarks.questions import Asked, Questionnaire, sample_users
from benchmarks.ranking import UNTIMED_ROUNDS
from benchmarks.results import PERFORMANCE, RELIABILITY, markdown, save
from benchmarks.shapes import SHAPES, random_llm
from models.bundle.index import IndexKind
from models.bundle.store import load_bundle
from models.engines.transformers import TransformersEngineConfig
from models.errors import ConfigError
from models.llm.loading import EMBEDDED
from service.settings import Settings
from training.backbones.config import PRESETS
from training.cli.main import Commands
from training.data.importing.source import source_name
from training.data.splits import Holdout
from training.evaluation.comparison import Bootstrap
from training.evaluation.results import write_results
from training.evaluation.seeds import aggregate
from training.runs.loop import LoopConfig

app = typer.Typer(cls=Commands, add_completion=False, pretty_exceptions_enable=False)

BundleOption = Annotated[Path, typer.Option(help="Whose users and items the questions are about.")]
SeedOption = Annotated[int, typer.Option(help="Draws users and candidates.")]
ThreadsOption = Annotated[int | None, typer.Option(help="torch's threads; its own choice if not given.")]
DeviceOption = Annotated[
    str, typer.Option(help="Where the transformers engine runs the LLM; vLLM finds its GPU itself.")
]
DEMO = Path("bundles/demo")
SIZES = "100000,1000000"


def named(name: str, *special: str) -> str:
    """A result's name, by which other bundle, engine or sizes than the documents' were asked: theirs is left alone."""
    return "-".join([name, *(each for each in special if each)])


def of_bundle(bundle: Path) -> str:
    """What names a bundle in a result's name; nothing for the demo's."""
    return "" if bundle == DEMO else bundle.name


def of_engine(engine: str) -> str:
    """What names an engine in a result's name; nothing for the default."""
    return "" if engine == "transformers" else engine


def place_of(engine: str, device: str) -> str:
    """Where an engine has its LLM: vLLM looks for a GPU itself."""
    return "cuda" if engine == "vllm" and torch.cuda.is_available() else torch.device(device).type


def keep(name: str, settings: dict[str, Any], rows: list[dict[str, Any]], document: Path, **more: Any) -> None:
    """Save what was measured: a document's tables are of a CPU, what another device gave has a file of its own."""
    device = settings["device"]
    save(named(name, "" if device == "cpu" else device), settings, rows, document=document, **more)


@app.callback(invoke_without_command=True)
def every(context: typer.Context) -> None:
    """Run those about the demo with their defaults: ranking, service, explanations, claims, filters."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(30))
    if context.invoked_subcommand is None:
        ranking()
        service()
        explanations()
        claims()
        filters()


@app.command()
def ranking(  # noqa: PLR0917 - typer reads the options off the signature
    bundle: BundleOption = DEMO,
    llm: Annotated[
        str, typer.Option(help="Of another token size than the bundle's: projections are random.")
    ] = EMBEDDED,
    shape: Annotated[
        str | None, typer.Option(help=f"Instead of --llm one of random weights: {', '.join(SHAPES)}.")
    ] = None,
    device: DeviceOption = "cpu",
    dtypes: Annotated[str, typer.Option(help="Comma-separated.")] = "float32,bfloat16",
    concurrencies: Annotated[str, typer.Option(help="Comma-separated.")] = "1,4,16",
    questions: Annotated[int, typer.Option(help="Prompts of a round.")] = 48,
    rounds: Annotated[int, typer.Option(help="Counted rounds.")] = 5,
    untimed: Annotated[int, typer.Option(min=1, help="Rounds that compare what is said.")] = UNTIMED_ROUNDS,
    candidates: Annotated[int, typer.Option(help="Titles to rank.")] = 20,
    seed: SeedOption = 0,
    threads: ThreadsOption = None,
) -> None:
    """Published way against our engines.

    Raises:
        ConfigError: an LLM and a shape are named, or an unknown shape.
    """
    if shape is not None and (shape not in SHAPES or llm != EMBEDDED):
        raise ConfigError(f"--shape {shape}: name one of {', '.join(SHAPES)}, and no --llm beside it")
    if threads is not None:
        torch.set_num_threads(threads)
    rows, sample = [], []
    levels = [int(level) for level in concurrencies.split(",")]
    with_vllm = find_spec("vllm") is not None
    for dtype in dtypes.split(","):
        with nullcontext(llm) if shape is None else random_llm(shape, dtype, device) as asked_llm:
            questionnaire = Questionnaire(bundle, asked_llm)
            sample = [each.question for each in questionnaire.ask(questions, candidates, seed)]

            def ask(round_: int, among: Questionnaire = questionnaire) -> list[Asked]:
                return among.ask(questions, candidates, seed * 10_000 + round_)

            config = TransformersEngineConfig.model_validate({"llm": asked_llm, "dtype": dtype, "device": device})
            measured = ranking_benchmark.measure(config, ask, levels, rounds, untimed, with_vllm)
            rows += asyncio.run(measured)
    settings = {
        "llm": shape or llm,
        "device": device,
        "candidates": candidates,
        "prompts_a_round": questions,
        "prompt_tokens_mean": fmean(len(question.prompt.token_ids) for question in sample),
        "branching_nodes_mean": fmean(len(question.trie.branches) for question in sample),
        "rounds": rounds,
        "seed": seed,
        "threads": torch.get_num_threads(),
    }
    place = place_of("vllm", device) if with_vllm else torch.device(device).type
    save(named("ranking", of_bundle(bundle), shape or "", place if place != "cpu" else ""), settings, rows)
    typer.echo(markdown(rows))


@app.command()
def titles(
    dataset: Annotated[Path, typer.Argument(help="An imported one, whose users and titles are asked about.")],
    llm: Annotated[str, typer.Option(help="The LLM.")] = EMBEDDED,
    dtypes: Annotated[str, typer.Option(help="Comma-separated.")] = "float32",
    workers: Annotated[str, typer.Option(help="Comma-separated: how many divide the cores; 1 has all.")] = "1",
    lengths: Annotated[str, typer.Option(help="Comma-separated: tokens to which titles are cut.")] = "64,24",
    users: Annotated[int, typer.Option(help="Users, one after the other.")] = 20,
    candidates: Annotated[int, typer.Option(help="Titles to rank.")] = 20,
    seed: SeedOption = 0,
) -> None:
    """How long an LLM takes to rank by how likely titles follow."""
    readers, rows = titles_benchmark.Readers(dataset, seed), []
    for dtype in dtypes.split(","):
        for count in map(int, workers.split(",")):
            config = TransformersEngineConfig.model_validate({"llm": llm, "dtype": dtype, "workers": count})
            cut = [int(length) for length in lengths.split(",")]
            rows += asyncio.run(titles_benchmark.measure(config, readers, cut, users, candidates))
    settings = {"llm": llm, "dataset": source_name(dataset), "users": users, "candidates": candidates, "seed": seed}
    save(f"titles-{source_name(dataset)}", settings, rows, document=None)
    typer.echo(markdown(rows))


@app.command()
def service(
    bundle: BundleOption = DEMO,
    engine: Annotated[str, typer.Option(help="transformers or vllm.")] = "transformers",
    dtype: Annotated[str, typer.Option(help="Of the LLM.")] = "float32",
    device: DeviceOption = "cpu",
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
    questionnaire = Questionnaire(bundle, EMBEDDED)

    def ask(round_: int) -> list[Asked]:
        return questionnaire.ask(questions, candidates, seed * 10_000 + round_)

    served = {"bundle": bundle, "engine": engine, "dtype": dtype, "device": device}
    rows = service_benchmark.measure(served, ask, concurrency, rounds)
    settings = {
        "engine": engine,
        "dtype": dtype,
        "device": place_of(engine, device),
        "rounds": rounds,
        "seed": seed,
        "threads": torch.get_num_threads(),
    }
    keep(named("service", of_bundle(bundle), of_engine(engine)), settings, rows, PERFORMANCE)
    typer.echo(markdown(rows))


@app.command()
def explanations(
    bundle: BundleOption = DEMO,
    engine: Annotated[str, typer.Option(help="transformers or vllm.")] = "transformers",
    dtype: Annotated[str, typer.Option(help="Of the LLM.")] = "float32",
    users: Annotated[int, typer.Option(help="How many are asked about.")] = 200,
    seed: SeedOption = 0,
    threads: ThreadsOption = None,
) -> None:
    """How often the LLM's sentence stands, and what it names."""
    if threads is not None:
        torch.set_num_threads(threads)
    asked = Questionnaire(bundle, EMBEDDED).users(1 + users, seed)
    rows = explanations_benchmark.measure(bundle, engine, dtype, asked)
    settings = {"users": users, "seed": seed, "threads": torch.get_num_threads()}
    save(named("explanations", of_bundle(bundle), of_engine(engine)), settings, rows)
    typer.echo(markdown(rows))


@app.command()
def claims(
    bundle: BundleOption = DEMO,
    engine: Annotated[str, typer.Option(help="transformers or vllm.")] = "transformers",
    dtype: Annotated[str, typer.Option(help="Of the LLM.")] = "float32",
    users: Annotated[int, typer.Option(help="How many are asked about.")] = 100,
    seconds: Annotated[int, typer.Option(help="For an explanation: more than the service gives, for large LLMs.")] = 60,
    seed: SeedOption = 0,
    threads: ThreadsOption = None,
) -> None:
    """How often what explanations claim holds, once what they name is taken out of the history.

    The LLM is the bundle's, whichever that is.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    settings = Settings(
        _env_file=None, bundle=bundle, engine=engine, dtype=dtype, log_level="error", explain_timeout_ms=seconds * 1000
    )
    loaded = load_bundle(bundle)
    rows = claims_benchmark.measure(settings, sample_users(loaded.model.histories, users, seed))
    asked = {"llm": loaded.manifest.llm.name, "dtype": dtype, "users": users, "seed": seed}
    settled = asked | {"threads": torch.get_num_threads()}
    save(named("claims", of_bundle(bundle), of_engine(engine)), settled, rows)
    typer.echo(markdown(rows))


@app.command()
def genres(
    bundle: BundleOption = DEMO,
    dataset: Annotated[Path, typer.Option(help="What the bundle was fitted on.")] = Path("data/demo"),
    users: Annotated[int, typer.Option(help="Who are fitted on, and as many others who are measured.")] = 500,
    seed: SeedOption = 0,
) -> None:
    """How often a user's favourite genre is named, and one of the item taken next."""
    torch.set_num_threads(1)
    rows = genres_benchmark.measure(bundle, dataset, users, seed)
    typer.echo(markdown(rows))


@app.command()
def backbones(
    dataset: Annotated[Path, typer.Argument(help="An imported dataset.")],
    out: Annotated[Path, typer.Option(help="Folder of the runs.")],
    presets: Annotated[str, typer.Option(help="Comma-separated.")] = ",".join(PRESETS),
    epochs: Annotated[float, typer.Option(help="At most.")] = 100,
    minutes: Annotated[float | None, typer.Option(help="At most, each.")] = None,
    validate_every: Annotated[float, typer.Option(help="Epochs.")] = 3,
    patience: Annotated[int, typer.Option(help="Validations without a better one.")] = 2,
    seed: SeedOption = 0,
) -> None:
    """Presets of the backbone on validation and test items: all / warm / cold / unseen."""
    torch.set_num_threads(1)
    loop = LoopConfig(epochs=epochs, minutes=minutes, validate_every=validate_every, patience=patience)
    typer.echo(markdown(backbones_benchmark.measure(dataset, presets.split(","), loop, out, seed)))


@app.command()
def elsewhere_split(
    dataset: Annotated[Path, typer.Argument(help="An imported dataset.")],
    out: Annotated[Path, typer.Argument(help="Folder of the files.")],
) -> None:
    """Leave-last-out as files that RecBole reads."""
    elsewhere_benchmark.write_split(dataset, out)


@app.command()
def elsewhere(
    dataset: Annotated[Path, typer.Argument(help="An imported dataset.")],
    out: Annotated[Path, typer.Argument(help="What `elsewhere-split` wrote, and vectors that were made of it.")],
    ours: Annotated[str, typer.Option(help="Comma-separated.")] = ",".join(elsewhere_benchmark.OURS),
    seeds: Annotated[int, typer.Option(help="Of each of ours.")] = 2,
    epochs: Annotated[float, typer.Option(help="At most, each of ours.")] = 100,
) -> None:
    """The backbones, and all vectors that another library left, among the whole catalogue."""
    torch.set_num_threads(1)
    for name in filter(None, ours.split(",")):
        for seed in range(seeds):
            loop = elsewhere_benchmark.LOOP.model_copy(update={"epochs": epochs})
            elsewhere_benchmark.train_ours(dataset, out, name, seed, loop)
    typer.echo(markdown(elsewhere_benchmark.score(dataset, out)))


@app.command()
def blends(
    dataset: Annotated[Path, typer.Argument(help="An imported dataset.")],
    out: Annotated[Path, typer.Option(help="Folder of the runs and tables.")],
    seeds: Annotated[int, typer.Option(help="Each changes everything that is random.")] = 5,
    preset: Annotated[str, typer.Option(help="Of the blend's backbone.")] = "hybrid_softmax",
    second: Annotated[str, typer.Option(help="Of another one that the blend has; '' for none.")] = "hybrid_bce",
    opponent: Annotated[str, typer.Option(help="Preset of the id-only backbone beside it.")] = "sasrec_softmax",
    epochs: Annotated[float, typer.Option(help="At most, each backbone.")] = 60,
    minutes: Annotated[float | None, typer.Option(help="At most, each backbone.")] = None,
    users: Annotated[int, typer.Option(help="Who are ranked for on test items.")] = 1000,
) -> None:
    """The blend without an LLM beside its parts and an id-only backbone: means over users and seeds."""
    torch.set_num_threads(1)
    loop = LoopConfig(epochs=epochs, minutes=minutes, validate_every=3, patience=2)
    settings = blends_benchmark.Settings(preset, second, opponent, loop, users)
    done = []
    for seed in range(seeds):
        done.append(blends_benchmark.fit_and_evaluate(dataset, settings, out / f"seed{seed}", seed))
        write_results({source_name(dataset): aggregate(done, Bootstrap(resamples=2000, seed=0))}, out)
    typer.echo(f"results: {out / 'results.md'}")


@app.command()
def stage2(
    dataset: Annotated[Path, typer.Argument(help="An imported dataset.")],
    out: Annotated[Path, typer.Option(help="Folder of the runs.")],
    ways: Annotated[list[str], typer.Option("--way", help="A name, then settings: 'hard a.b=1 a.c=2'. Repeatable.")],
    recipe: Annotated[str, typer.Option(help="Of all.")] = "default",
    settings: Annotated[list[str] | None, typer.Option("--set", help="Of all, as `fit` takes them.")] = None,
    steps: Annotated[int, typer.Option(help="Of each way by the LLM.")] = 120,
    users: Annotated[int, typer.Option(help="Who are ranked for.")] = 1000,
    holdout: Annotated[Holdout, typer.Option(help="Which of their items is to be found.")] = Holdout.VALIDATION,
    llm: Annotated[bool, typer.Option(help="Let the LLM rank, too.")] = True,
    among: Annotated[stage2_benchmark.Among, typer.Option(help="Which negatives.")] = "uniform",
) -> None:
    """Ways to train stage 2, each beside the backbone: all / warm / cold / unseen items."""
    torch.set_num_threads(1)
    common = stage2_benchmark.Settings(dataset, recipe, tuple(settings or ()), steps, users, holdout, llm, among)
    named = {name: rest for name, *rest in (way.split() for way in ways)}
    rows = []
    for row in stage2_benchmark.measure(common, named, out):
        rows.append(row)
        typer.echo(row, err=True)
    typer.echo(markdown(rows))


@app.command()
def backbone_scale(
    interactions: Annotated[int, typer.Option(help="Of all users together.")] = 3_400_000,
    items: Annotated[int, typer.Option(help="In the catalogue.")] = 60_000,
    presets: Annotated[str, typer.Option(help="Comma-separated.")] = "sasrec_sampled,hybrid_bce,hybrid_softmax",
    steps: Annotated[int, typer.Option(help="Of each preset.")] = 20,
    validation_users: Annotated[int, typer.Option(help="Who are validated on.")] = 2000,
    seed: SeedOption = 0,
) -> None:
    """Memory and speed of training a backbone on generated data."""
    torch.set_num_threads(1)
    rows = backbone_scale_benchmark.measure(interactions, items, presets.split(","), steps, validation_users, seed)
    typer.echo(markdown(rows))


@app.command()
def filters(
    sizes: Annotated[str, typer.Option(help="Items of each catalogue, comma-separated.")] = SIZES,
    kinds: Annotated[str, typer.Option(help="Comma-separated.")] = "flat,hnsw,ivf",
    largest_graph: Annotated[int, typer.Option(help="Items up to which a graph is built: that takes long.")] = 100_000,
    queries: Annotated[int, typer.Option(help="Users that ask under each filter.")] = 30,
    seen: Annotated[int, typer.Option(help="A user's best items, left out in every second row.")] = 3000,
    seed: SeedOption = 0,
) -> None:
    """Recall and latency of retrieval under category filters and exclusions."""
    rows = []
    for items in (int(size) for size in sizes.split(",")):
        chosen = [IndexKind(kind) for kind in kinds.split(",")]
        chosen = [kind for kind in chosen if kind != IndexKind.HNSW or items <= largest_graph]
        rows += filters_benchmark.measure(items, chosen, 64, queries, seen, seed)
    summary = filters_benchmark.summary(rows)
    asked = "" if sizes == SIZES else sizes.replace(",", "-")
    save(named("filters", asked), {"embedding_size": 64, "queries": queries, "seen": seen, "seed": seed}, rows, summary)
    typer.echo(markdown(summary))


@app.command()
def disturbed(
    dataset: Annotated[Path, typer.Option(help="An imported dataset.")] = Path("data/demo"),
    recipe: Annotated[str, typer.Option(help="Of the run.")] = "demo",
    run: Annotated[Path, typer.Option(help="The folder of the run.")] = Path("runs/demo"),
    users: Annotated[int, typer.Option(help="Evaluated, and asked the LLM about.")] = 100,
    rounds: Annotated[int, typer.Option(help="Evaluations of each kind.")] = 3,
) -> None:
    """An evaluation alone, and beside a process that keeps a core busy."""
    settings = [f"users={users}", f"llm_users={users}", f"check_users={users // 4}", "resamples=100"]
    rows = disturbed_benchmark.measure(dataset, recipe, run, settings, rounds)
    save("disturbed", {"dataset": dataset.name, "recipe": recipe, "users": users, "rounds": rounds}, rows)
    typer.echo(markdown(rows))


@app.command("import")
def import_(
    rows: Annotated[str, typer.Option(help="Sizes, comma-separated.")] = "1_000_000,4_000_000",
    items: Annotated[int, typer.Option(help="How many items.")] = 100_000,
    seed: SeedOption = 0,
) -> None:
    """How an import scales; `--rows 100_000_000` takes 6 GiB of disk for the time."""
    measured = []
    for row in import_benchmark.measure([int(size) for size in rows.split(",")], items, seed):
        measured.append(row)
        save("import", {"items": items, "rows_a_user": import_benchmark.ROWS_A_USER, "seed": seed}, measured)
    typer.echo(markdown(measured))


@app.command()
def overload(
    bundle: BundleOption = DEMO,
    engine: Annotated[str, typer.Option(help="transformers or vllm.")] = "transformers",
    dtype: Annotated[str, typer.Option(help="Of the LLM.")] = "float32",
    device: DeviceOption = "cpu",
    seconds: Annotated[float, typer.Option(help="Of each load.")] = 20.0,
    timeout_ms: Annotated[int, typer.Option(help="Of the requests.")] = 1000,
    candidates: Annotated[int, typer.Option(help="Titles to rank.")] = 20,
    llm_core: Annotated[int | None, typer.Option(help="A core that the LLM has for itself, and nothing else.")] = None,
    seed: SeedOption = 0,
) -> None:
    """The service at multiples of its capacity, open loop."""
    questionnaire = Questionnaire(bundle, EMBEDDED)
    bodies = questionnaire.bodies(overload_benchmark.QUESTIONS, candidates, seed)
    users = questionnaire.users(50, seed)
    service = (bundle, engine, dtype, device)
    rows, more = overload_benchmark.measure(service, bodies, users, seconds, timeout_ms, llm_core)
    times = {"seconds": seconds, "timeout_ms": timeout_ms}
    settings = {"engine": engine, "dtype": dtype, "device": place_of(engine, device), **times, "seed": seed}
    name = named("overload", of_bundle(bundle), engine, "" if llm_core is None else "apart")
    keep(name, settings | {"llm_core": llm_core}, rows, RELIABILITY, **more)
    typer.echo(markdown(rows))
    typer.echo(more)


@app.command()
def storms(
    bundle: BundleOption = DEMO,
    engine: Annotated[str, typer.Option(help="transformers or vllm.")] = "transformers",
    dtype: Annotated[str, typer.Option(help="Of the LLM.")] = "float32",
    count: Annotated[int, typer.Option(help="Storms, one after the other.")] = 10,
    seconds: Annotated[float, typer.Option(help="Of each of the two loads of a storm.")] = 10.0,
    rate: Annotated[float, typer.Option(help="Requests a second with a second of time for each.")] = 100.0,
    tight_rate: Annotated[float, typer.Option(help="Requests a second with 50 ms for each.")] = 800.0,
    candidates: Annotated[int, typer.Option(help="Titles to rank.")] = 20,
    seed: SeedOption = 0,
) -> None:
    """What memory the service has after each of several storms."""
    bodies = Questionnaire(bundle, EMBEDDED).bodies(overload_benchmark.QUESTIONS, candidates, seed)
    rows = overload_benchmark.storms((bundle, engine, dtype, "cpu"), bodies, count, seconds, (rate, tight_rate))
    loads = {"count": count, "seconds": seconds, "rates": [rate, tight_rate]}
    settings = {"engine": engine, "dtype": dtype, "device": place_of(engine, "cpu"), **loads}
    keep(named("storms", of_bundle(bundle), engine), settings, rows, RELIABILITY)
    typer.echo(markdown(rows))


if __name__ == "__main__":
    app()
