"""Where settings come from, and that they are written down."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.errors import ConfigError
from service.settings import Settings, load_settings

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("PORT", "REDIS_URL", *(f"ALLMREC_{field.upper()}" for field in Settings.model_fields)):
        monkeypatch.delenv(name, raising=False)


def test_overrides_come_before_the_environment_before_dotenv_before_defaults(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("ALLMREC_WINDOW=5\nALLMREC_RETRIEVE=50\nALLMREC_VARIANT=from-file\nOTHER=x\n")
    monkeypatch.setenv("ALLMREC_RETRIEVE", "60")
    monkeypatch.setenv("ALLMREC_VARIANT", "from-environment")
    settings = load_settings(variant="from-flag")
    assert (settings.variant, settings.retrieve, settings.window, settings.max_candidates) == ("from-flag", 60, 5, 1000)


def test_port_and_redis_url_have_their_conventional_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "9000")
    monkeypatch.setenv("REDIS_URL", "redis://:secret@cache:6379")
    settings = load_settings()
    assert settings.port == 9000
    assert settings.redis_url is not None
    assert settings.redis_url.get_secret_value() == "redis://:secret@cache:6379"
    assert "secret" not in repr(settings)
    monkeypatch.setenv("ALLMREC_PORT", "9001")
    assert load_settings().port == 9001
    assert load_settings(port=9002).port == 9002


def test_an_empty_value_is_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compose files pass unset variables on as empty ones. Of two names the other counts."""
    for name in Settings.model_fields:
        monkeypatch.setenv(f"ALLMREC_{name.upper()}", "")
    monkeypatch.setenv("REDIS_URL", "")
    assert load_settings() == load_settings(api_key="", llm="") == Settings()
    monkeypatch.setenv("PORT", "9")
    assert load_settings().port == 9


@pytest.mark.parametrize(
    ("name", "value"),
    [("CLOCK_SKEW_SECONDS", "inf"), ("LAME_DUCK_SECONDS", "nan"), ("LIVE_HISTORY_TTL_SECONDS", "9999999999999999")],
)
def test_times_that_no_clock_can_do_with_are_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"ALLMREC_{name}", value)
    with pytest.raises(ConfigError, match=f"ALLMREC_{name}: "):
        load_settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [("PORT", "http"), ("ALLMREC_ENGINE", "magic"), ("ALLMREC_WINDOW", "0"), ("ALLMREC_DTYPE", "int3")],
)
def test_a_wrong_value_names_its_setting(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=f"ALLMREC_{name.removeprefix('ALLMREC_')}: "):
        load_settings()


@pytest.mark.parametrize("where", ["environment", ".env"])
def test_a_mistyped_name_is_refused_with_the_one_that_is_near(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, where: str
) -> None:
    if where == ".env":
        (tmp_path / ".env").write_text("ALLMREC_TIMEOUT=5\n")
    else:
        monkeypatch.setenv("ALLMREC_TIMEOUT", "5")
    with pytest.raises(ConfigError, match="no setting ALLMREC_TIMEOUT: ALLMREC_TIMEOUT_MS is meant"):
        load_settings()


@pytest.mark.parametrize("document", [".env.example", "docs/operations.md"])
def test_every_setting_is_documented(document: str) -> None:
    text = (ROOT / document).read_text()
    names = [f"ALLMREC_{field.upper()}" for field in Settings.model_fields]
    assert [name for name in names if name not in text] == []


def test_the_example_file_holds_the_defaults(tmp_path: Path) -> None:
    """Every line of it, uncommented, changes nothing."""
    lines = (ROOT / ".env.example").read_text().splitlines()
    values = [line.removeprefix("# ") for line in lines if line.removeprefix("# ").startswith("ALLMREC_")]
    assert len(values) == len(Settings.model_fields)
    (tmp_path / "example").write_text("\n".join(values))
    assert Settings(_env_file=tmp_path / "example") == Settings(_env_file=None)  # type: ignore[call-arg]
