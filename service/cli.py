"""`allmrec-serve`: serve a bundle over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from models.bundle.manifest import load_manifest
from models.bundle.store import resolve_bundle
from models.errors import AllmrecError, BundleError
from service.settings import Settings, load_settings

if TYPE_CHECKING:
    from service.runtime import Services

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.callback(invoke_without_command=True)
def serve(
    context: typer.Context,
    bundle: Annotated[Path | None, typer.Option(help="Bundle version or bundle home. (default: bundles/demo)")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on. (default: 127.0.0.1)")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one. (default: 8000)")] = None,
    engine: Annotated[str | None, typer.Option(help="transformers or vllm. (default: transformers)")] = None,
    llm: Annotated[str | None, typer.Option(help="LLM by name or path. (default: the bundle's own)")] = None,
    device: Annotated[
        str | None, typer.Option(help="Where the transformers engine runs the LLM. (default: cpu)")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="float32, bfloat16 or float16. (default: the engine's choice)")
    ] = None,
    variant: Annotated[str | None, typer.Option(help="Name of this variant. (default: control)")] = None,
    log_format: Annotated[str | None, typer.Option(help="json or console. (default: json)")] = None,
) -> None:
    """Serve a bundle over HTTP.

    Every option, and many more settings, can come from the environment or a .env file: see .env.example.
    """
    if context.invoked_subcommand is not None:
        return
    given = {
        "bundle": bundle,
        "host": host,
        "port": port,
        "engine": engine,
        "llm": llm,
        "device": device,
        "dtype": dtype,
        "variant": variant,
        "log_format": log_format,
    }
    try:
        settings = load_settings(**{name: value for name, value in given.items() if value is not None})
        load_manifest(resolve_bundle(settings.bundle))
    except BundleError as error:
        _fail(f"{error}. `make run` trains and serves a demo")
    except AllmrecError as error:
        _fail(error)
    listener = _listen(settings)
    from service.app import create_app  # noqa: PLC0415 - seconds of imports that help and errors do not need
    from service.server import LameDuckServer  # noqa: PLC0415

    failures: list[BaseException] = []

    def stop(error: BaseException) -> None:
        failures.append(error)
        server.should_exit = True

    def greet(services: Services) -> None:
        settle()
        typer.echo(greeting(settings.host, listener.getsockname()[1], services, settings.api_key is not None))

    try:
        server = LameDuckServer(create_app(settings, on_ready=greet, on_failure=stop), settings)
    except AllmrecError as error:
        _fail(error)
    with contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=[listener])
    if failures:
        _fail(failures[0])


@app.command("migrate-users")
def migrate() -> None:
    """Move users from the layout of the first version to this one's, in the Redis of REDIS_URL or our own. Once."""
    from service.preflight import check_urls  # noqa: PLC0415 - as above
    from service.stores.create import migrate_stored_users  # noqa: PLC0415

    try:
        settings = load_settings()
        check_urls(settings)
        moved = asyncio.run(migrate_stored_users(settings))
    except AllmrecError as error:
        _fail(error)
    typer.echo(f"moved {moved} users; start the service")


def settle() -> None:
    """What is loaded stays, so the garbage collector need not look at it: it took a quarter of a second each time."""
    gc.collect()
    gc.freeze()


def greeting(host: str, port: int, services: Services, with_key: bool) -> str:
    """One line: where the service is, and a request that works."""
    address = f"http://{'127.0.0.1' if host in ('0.0.0.0', '::') else host}:{port}"  # noqa: S104
    user_ids = services.deployments.take().sample_users(1)
    body = json.dumps({"user_id": user_ids[0] if user_ids else "anyone", "return_metadata": ["title"]})
    quoted = body.replace("'", "'\\''")
    key = "-H 'X-API-Key: <key>' " if with_key else ""
    return (
        f"allmrec is ready on {address}  try:  "
        f"curl -s {address}/recommend -H 'Content-Type: application/json' {key}-d '{quoted}'"
    )


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        _fail(
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror}: stop what runs there, or choose"
            " another port with --port or PORT"
        )
    return listener


def _fail(error: object) -> NoReturn:
    typer.secho(f"allmrec-serve: {error}", fg="red", err=True)
    raise typer.Exit(1)
