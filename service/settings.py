"""All settings of the service.

Precedence: command line, then environment (`ALLMREC_...`, and the conventional `PORT` and `REDIS_URL`), then a `.env`
file in the working directory, then the defaults below.
"""

from __future__ import annotations

import os
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from dotenv import dotenv_values
from pydantic import AliasChoices, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from models.errors import ConfigError

PREFIX = "ALLMREC_"
DAY = 86_400
CENTURY = 36_525 * DAY
"""In seconds."""

# Nobody means more, and more is more than clocks and Redis can do with.
Seconds = Annotated[float, Field(le=DAY)]
WholeSeconds = Annotated[int, Field(le=DAY)]
Milliseconds = Annotated[int, Field(le=1000 * DAY)]
Life = Annotated[int, Field(le=CENTURY)]


class Settings(BaseSettings):
    """One frozen object, built once by the composition root."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=".env",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        populate_by_name=True,
        allow_inf_nan=False,
    )

    bundle: Path = Field(Path("bundles/demo"), description="Bundle version or bundle home to serve.")
    variant: str = Field("control", description="Name of this variant in answers and metrics.")

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(
        8000,
        ge=0,
        le=65535,
        validation_alias=AliasChoices(f"{PREFIX}PORT", "PORT"),
        description="Port to listen on; 0 takes a free one. `PORT` works too.",
    )
    api_key: SecretStr | None = Field(
        None, description="If set, clients send it as `Authorization: Bearer` or `X-API-Key`."
    )
    max_body_bytes: int = Field(1 << 20, gt=0, description="Larger request bodies are refused with 413.")
    max_requests: int = Field(512, gt=0, description="Requests in flight; more are refused with 503.")
    metrics_without_key: bool = Field(False, description="Leave `/metrics` open where there is an API key.")
    max_wrong_keys: int = Field(30, gt=0, description="Wrong keys a minute from one address; more are told 429.")
    cors_origins: list[str] = Field([], description='Origins whose pages may ask, as JSON: `["https://shop.example"]`.')
    max_connections: int = Field(2048, gt=0, description="Connections; beyond, the slowest or silent one goes.")
    max_header_bytes: int = Field(32_768, gt=0, description="Larger request headers are refused with 431.")
    read_timeout_seconds: Seconds = Field(10.0, gt=0, description="A request is there by then, or refused.")
    keep_alive_seconds: WholeSeconds = Field(75, gt=0, description="How long a silent connection is kept.")
    lame_duck_seconds: Seconds = Field(5.0, ge=0, description="From SIGTERM on: not ready, but still answering.")
    shutdown_seconds: WholeSeconds = Field(10, ge=0, description="How long running requests may finish on shutdown.")

    engine: Literal["transformers", "vllm"] = Field("transformers", description="LLM engine.")
    llm: str | None = Field(None, description="LLM by name or path; the bundle's own if not given.")
    device: str = Field("cpu", description="Where the transformers engine runs the LLM; vLLM finds its GPU itself.")
    dtype: Literal["float32", "bfloat16", "float16"] | None = Field(
        None, description="LLM precision; the engine's choice if not set."
    )
    engine_options: dict[str, Any] = Field(
        {}, description='More options of the engine, as JSON: `{"tensor_parallel_size": 2}`.'
    )
    engine_process: bool = Field(
        True, description="Run the engine in a process of its own: the LLM and the answers do not wait for each other."
    )
    torch_threads: int | None = Field(
        None, gt=0, description="Threads of one torch operation; torch's choice if not set."
    )

    ranker: Literal["llm", "blend"] = Field(
        "llm", description="Who ranks: the blend with the LLM, or that without it, which saves the LLM's cost."
    )
    window: int = Field(20, ge=1, le=100, description="How many items the LLM ranks: the best by the blend without it.")
    retrieve: int = Field(100, ge=1, le=1000, description="How many items are retrieved and ranked.")
    max_candidates: int = Field(1000, ge=1, description="Candidates a client may send; more are refused with 422.")
    timeout_ms: Milliseconds = Field(1000, gt=0, description="Time to answer if the request does not say.")
    max_timeout_ms: Milliseconds = Field(60_000, gt=0, description="Longest `timeout_ms` a request may ask for.")
    reserve_ms: Milliseconds = Field(10, ge=0, description="Kept from the LLM's time for the rest of the answer.")
    floor_ms: Milliseconds = Field(25, ge=0, description="The blend gets this long however small `timeout_ms` is.")
    max_inflight: int = Field(64, gt=0, description="Requests at the LLM; more get the blend's ranking.")
    explain_timeout_ms: Milliseconds = Field(10_000, gt=0, description="Time for an explanation.")
    explain_tokens: int = Field(48, gt=0, description="Longest explanation, quoted titles aside, in LLM tokens.")
    explain_tries: int = Field(
        8, ge=0, le=32, description="Items of a history without which the LLM is asked again, to tell what they do."
    )

    tenant: str = Field("default", min_length=1, max_length=64, description="Whose users these are, in a shared Redis.")
    redis_url: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices(f"{PREFIX}REDIS_URL", "REDIS_URL"),
        description="Redis for users; a local server of our own if not given. `REDIS_URL` works too.",
    )
    cache_url: SecretStr | None = Field(
        None, description="Redis for cached representations; that of the users if not given."
    )
    redis_dir: Path = Field(Path("data/redis"), description="Where the local server persists.")
    redis_appendfsync: Literal["always", "everysec", "no"] = Field(
        "always", description="When the local server has events on the disk: before they are acknowledged, or later."
    )
    redis_waitaof: bool = Field(False, description="Acknowledge events once a Redis given by URL has them on its disk.")
    redis_connections: int = Field(64, gt=0, description="Connections of each kind, to each node; others wait.")
    redis_timeout_ms: Milliseconds = Field(100, gt=0, description="Longest wait for a Redis connection, or an answer.")
    redis_write_timeout_ms: Milliseconds = Field(2000, gt=0, description="The same for events to be kept.")
    redis_retry_seconds: Seconds = Field(1.0, gt=0, description="Redis is looked after as often as this.")
    user_cache_size: int = Field(10_000, ge=1, description="Users kept in process memory.")
    representation_ttl_seconds: Life = Field(86_400, gt=0, description="Life of a cached user representation.")
    representation_places: int = Field(100_000, ge=1, description="Cached representations at most.")
    live_history_items: int = Field(50, ge=1, description="Items of feedback in a history.")
    live_history_ttl_seconds: Life = Field(30 * 86_400, gt=0, description="Life of what a silent user did.")
    live_seen_items: int = Field(10_000, ge=1, description="Items of feedback remembered per user as seen.")
    live_unknown_items: int = Field(100, ge=1, description="The same for items that the catalogue does not have.")
    live_events: int = Field(200, ge=1, description="Events kept per user, with type and recommendation.")
    clock_skew_seconds: Seconds = Field(300, ge=0, description="How far a client's clock may be ahead.")

    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level logged.")
    log_format: Literal["json", "console"] = Field("json", description="Log lines for machines or people.")

    @property
    def precision(self) -> str:
        """Of the LLM: what is told, or the engine's own choice."""
        usual = "float32" if self.engine == "transformers" else "auto"
        return str(self.dtype or self.engine_options.get("dtype", usual))

    @property
    def computes_in_half(self) -> bool:
        """Whether the LLM computes in half precision, which vLLM does unless told otherwise."""
        return self.precision != "float32"


def load_settings(**overrides: object) -> Settings:
    """Settings from the environment, `overrides` first.

    Raises:
        ConfigError: a value is wrong; names the setting.
    """
    _refuse_unknown_names()
    given = {name: value for name, value in overrides.items() if value != ""}
    try:
        return Settings(**given)  # type: ignore[arg-type]
    except ValidationError as error:
        problems = "; ".join(
            f"{PREFIX}{str(detail['loc'][0]).removeprefix(PREFIX).upper()}: {detail['msg']}"
            for detail in error.errors()
        )
        raise ConfigError(f"wrong settings: {problems}") from error
    except SettingsError as error:
        raise ConfigError(f"wrong settings: {error}; lists and mappings are written as JSON") from error


def _refuse_unknown_names() -> None:
    """A setting that is mistyped is not overlooked.

    Raises:
        ConfigError: names it, and the one that was meant.
    """
    known = [f"{PREFIX}{field.upper()}" for field in Settings.model_fields]
    for name in [*os.environ, *dotenv_values(".env")]:
        if name.upper().startswith(PREFIX) and name.upper() not in known:
            near = get_close_matches(name.upper(), known, 1)
            hint = f": {near[0]} is meant?" if near else ": see .env.example for all there are"
            raise ConfigError(f"there is no setting {name}{hint}")
