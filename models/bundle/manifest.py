"""`manifest.json`: what a bundle is, and the SHA-256 of all of its files."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from models.bundle.blend import Blends
from models.config import Config
from models.errors import BundleError
from models.prompts.template import PromptConfig

SCHEMA_VERSION = 5
MANIFEST = "manifest.json"


class BackboneRecord(Config):
    """Which CF backbone a bundle holds."""

    kind: str
    config: dict[str, Any]


class LLMRecord(Config):
    """The LLM a bundle was aligned with.

    Attributes:
        name: as the user named it.
        fingerprint: of config and weights.
        reading: of what its tokenizer makes of texts; empty in bundles of before, which are not checked by it.
    """

    name: str
    fingerprint: str
    reading: str = ""


class FileRecord(Config):
    """One file of a bundle."""

    sha256: str
    size: int


class Origin(Config):
    """What a bundle's manifest says of where it comes from.

    Attributes:
        name: of the catalogue.
        prompt: the prompts that stage 2 was trained with.
        llm: the LLM that stage 2 was trained with.
        text_encoder: name of the encoder that was fine-tuned.
        blends: how signals are weighed, and what each is worth.
        refitted: all was fitted again on all interactions once it was chosen; `metrics` and the blends are of the
            fit before, which held some out.
        metrics: of every stage on its validation users. What was measured on test users is no part of a bundle.
    """

    name: str
    prompt: PromptConfig
    llm: LLMRecord
    text_encoder: str
    blends: Blends
    refitted: bool = False
    metrics: dict[str, Any]


class Manifest(Origin):
    """`manifest.json`. `checksum` is the SHA-256 of all the rest."""

    schema_version: int
    bundle_version: str
    created_at: datetime
    user_size: int
    joint_size: int
    token_size: int
    items: int
    users: int
    backbone: BackboneRecord
    second: BackboneRecord | None = None
    files: dict[str, FileRecord]
    checksum: str = ""

    def serialise(self) -> bytes:
        """The one byte sequence that this manifest is written as."""
        absent = {"second"} if self.second is None else set()  # releases that know of none can read it
        return _written(self.model_dump(mode="json", exclude={"checksum", *absent}))


def load_manifest(directory: Path) -> Manifest:
    """Read and verify the manifest alone; what it leaves out has its default.

    Raises:
        BundleError: it is missing, damaged or of another schema version.
    """
    path = directory / MANIFEST
    try:
        data = path.read_bytes()
        content = json.loads(data)
        version = content.get("schema_version")
        if version != SCHEMA_VERSION:
            raise BundleError(f"{path}: schema version {version}, this release reads {SCHEMA_VERSION}: export again")
        manifest = Manifest.model_validate_json(data)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, AttributeError, RecursionError, ValidationError) as error:
        raise BundleError(f"{path}: damaged, not a manifest: restore or export the bundle again") from error
    if data != _written({name: value for name, value in content.items() if name != "checksum"}):
        raise BundleError(f"{path}: damaged, its checksum does not match: restore or export the bundle again")
    return manifest


def _written(content: dict[str, Any]) -> bytes:
    """`content` with its checksum, as files have it."""
    checksum = hashlib.sha256(_canonical(content)).hexdigest()
    return json.dumps({**content, "checksum": checksum}, indent=2, ensure_ascii=False, sort_keys=True).encode()


def _canonical(content: dict[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
