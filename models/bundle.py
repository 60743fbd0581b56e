"""The bundle: all that is specific to one catalogue, as one immutable, hashed directory.

A bundle is written under a temporary name and renamed, so a half-written one does not exist. Every file is named in
`manifest.json` with its SHA-256, and the manifest carries its own. Nothing in it is pickled.

A *bundle home* holds the versions of one catalogue and a link `current` to the one in use:

    bundles/movies/20260102-030405-1a2b3c4d/
    bundles/movies/current -> 20260102-030405-1a2b3c4d
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from models.backbones import Backbone, create_backbone
from models.catalogue import Catalogue
from models.config import Config
from models.errors import BundleError
from models.histories import UserHistories
from models.index import ItemIndex
from models.projection import TokenProjector
from models.prompt import PromptConfig

SCHEMA_VERSION = 2
MANIFEST = "manifest.json"
CURRENT = "current"
TEXT_ENCODER = "text_encoder"
DRAFT_PREFIX = ".writing-"
DRAFT_LIFE_SECONDS = 86_400


class BackboneRecord(Config):
    """Which CF backbone a bundle holds."""

    kind: str
    config: dict[str, Any]


class LLMRecord(Config):
    """The LLM a bundle was aligned with."""

    name: str
    fingerprint: str


class FileRecord(Config):
    """One file of a bundle."""

    sha256: str
    size: int


class Manifest(Config):
    """`manifest.json`. `checksum` is the SHA-256 of all the rest."""

    schema_version: int
    bundle_version: str
    name: str
    created_at: datetime
    prompt: PromptConfig
    user_size: int
    joint_size: int
    token_size: int
    items: int
    users: int
    backbone: BackboneRecord
    llm: LLMRecord
    text_encoder: str
    metrics: dict[str, Any]
    files: dict[str, FileRecord]
    checksum: str = ""

    def serialise(self) -> bytes:
        """The one byte sequence that this manifest is written as."""
        content = self.model_dump(mode="json", exclude={"checksum"})
        content["checksum"] = hashlib.sha256(_canonical(content)).hexdigest()
        return json.dumps(content, indent=2, ensure_ascii=False, sort_keys=True).encode()


@dataclass(frozen=True)
class BundleContents:
    """What a bundle carries besides its manifest.

    Attributes:
        catalogue: the items.
        histories: last interactions of the users known in training.
        backbone: the frozen CF backbone.
        cf_vectors: (N+1, d) items in CF space: the backbone's own, or decoded from text for items it never saw.
        joint_item: (N+1, 2d') joint embeddings: e_i, or q_i for items that the backbone never saw, and beside it q_i.
        joint_text: (N+1, 2d') q_i of all items, twice: what an item is to the LLM by its text alone.
        joint_genre: (G, 2d') what a genre is to the LLM, in the order of `Catalogue.genres`.
        projector: F_U and F_I.
        index: over `cf_vectors`.
        alignment: stage-1 weights by name.
    """

    catalogue: Catalogue
    histories: UserHistories
    backbone: Backbone
    cf_vectors: torch.Tensor
    joint_item: torch.Tensor
    joint_text: torch.Tensor
    joint_genre: torch.Tensor
    projector: TokenProjector
    index: ItemIndex
    alignment: dict[str, torch.Tensor]


@dataclass(frozen=True)
class Bundle:
    """A verified bundle in memory."""

    path: Path
    manifest: Manifest
    contents: BundleContents

    @property
    def version(self) -> str:
        """The bundle version, part of every cache key."""
        return self.manifest.bundle_version

    def check_llm(self, fingerprint: str, name: str) -> None:
        """Refuse an LLM other than the one this bundle was aligned with.

        Raises:
            BundleError: the fingerprints differ.
        """
        aligned = self.manifest.llm
        if fingerprint != aligned.fingerprint:
            raise BundleError(
                f"{self.path / MANIFEST}: the bundle was aligned with LLM '{aligned.name}'"
                f" ({aligned.fingerprint[:12]}), but '{name}' ({fingerprint[:12]}) is loaded:"
                " serve it with its own LLM, or run stage2 and export again"
            )


def write_bundle(
    home: Path,
    contents: BundleContents,
    *,
    name: str,
    prompt: PromptConfig,
    backbone: BackboneRecord,
    llm: LLMRecord,
    text_encoder: str,
    save_text_encoder: Callable[[Path], None],
    metrics: dict[str, Any],
) -> Path:
    """Write a new version into bundle home `home`, publish it as `current`, and return its path.

    Args:
        home: created if missing; other versions in it are left alone.
        contents: what to write.
        name: the catalogue's name.
        prompt: the prompts that stage 2 was trained with.
        backbone: kind and config of `contents.backbone`.
        llm: the LLM that stage 2 was trained with.
        text_encoder: name of the encoder that was fine-tuned.
        save_text_encoder: writes the encoder into the folder it is given, in its library's own format.
        metrics: evaluation results to carry along.
    """
    created_at = datetime.now(UTC).replace(microsecond=0)
    home.mkdir(parents=True, exist_ok=True)
    _clear_drafts(home)
    draft = Path(tempfile.mkdtemp(prefix=DRAFT_PREFIX, dir=home))
    draft.chmod(0o755)
    try:
        _write_contents(draft, contents)
        save_text_encoder(draft / TEXT_ENCODER)
        files = {path.relative_to(draft).as_posix(): _record(path) for path in _files(draft)}
        manifest = Manifest(
            schema_version=SCHEMA_VERSION,
            bundle_version="",
            name=name,
            created_at=created_at,
            prompt=prompt,
            user_size=contents.cf_vectors.shape[1],
            joint_size=contents.joint_item.shape[1],
            token_size=contents.projector.token_size,
            items=len(contents.catalogue),
            users=len(contents.histories),
            backbone=backbone,
            llm=llm,
            text_encoder=text_encoder,
            metrics=metrics,
            files=files,
        )
        digest = hashlib.sha256(manifest.serialise()).hexdigest()
        version = f"{created_at:%Y%m%d-%H%M%S}-{digest[:8]}"
        manifest = manifest.model_copy(update={"bundle_version": version})
        (draft / MANIFEST).write_bytes(manifest.serialise())
        for path in _files(draft):
            path.chmod(0o644)  # safetensors writes for the owner alone; the service may be another user
            _sync(path)
        final = home / manifest.bundle_version
        if final.exists():
            shutil.rmtree(draft)
        else:
            draft.rename(final)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    publish(final)
    return final


def publish(version: Path) -> None:
    """Point the `current` link of the version's home at it, in one atomic step."""
    link = version.parent / f".{CURRENT}-{os.getpid()}"
    link.unlink(missing_ok=True)
    link.symlink_to(version.name)
    link.replace(version.parent / CURRENT)


def resolve_bundle(path: Path) -> Path:
    """The version directory that `path` means: itself, or the current version of a bundle home.

    Raises:
        BundleError: there is no bundle.
    """
    for candidate in (path, path / CURRENT):
        if (candidate / MANIFEST).is_file():
            return candidate.resolve()
    raise BundleError(
        f"{path}: no bundle here (no {MANIFEST}, no {CURRENT}/{MANIFEST}): run `allmrec-train fit` or `export` first"
    )


def load_manifest(directory: Path) -> Manifest:
    """Read and verify the manifest alone.

    Raises:
        BundleError: it is missing, damaged or of another schema version.
    """
    path = directory / MANIFEST
    try:
        data = path.read_bytes()
        version = json.loads(data).get("schema_version")
        if version != SCHEMA_VERSION:
            raise BundleError(f"{path}: schema version {version}, this release reads {SCHEMA_VERSION}: export again")
        manifest = Manifest.model_validate_json(data)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, AttributeError, ValidationError) as error:
        raise BundleError(f"{path}: damaged, not a manifest: restore or export the bundle again") from error
    if data != manifest.serialise():
        raise BundleError(f"{path}: damaged, its checksum does not match: restore or export the bundle again")
    return manifest


def load_bundle(path: Path, device: str = "cpu") -> Bundle:
    """Load and verify the bundle at `path`, a version directory or a bundle home.

    Raises:
        BundleError: a file is missing, damaged or not readable; names the file.
    """
    directory = resolve_bundle(path)
    manifest = load_manifest(directory)
    verify_files(directory, manifest)
    try:
        contents = _read_contents(directory, manifest, device)
    except (SafetensorError, pl.exceptions.PolarsError, RuntimeError, KeyError) as error:
        raise BundleError(f"{directory}: files are intact but do not fit together: {error}") from error
    return Bundle(directory, manifest, contents)


def verify_files(directory: Path, manifest: Manifest) -> None:
    """Compare every file with its hash.

    Raises:
        BundleError: a file is missing or differs; names it.
    """
    for name, expected in manifest.files.items():
        path = directory / name
        if not path.is_file():
            raise BundleError(f"{path}: missing: restore or export the bundle again")
        if _record(path) != expected:
            raise BundleError(f"{path}: damaged, its SHA-256 differs from the manifest: restore or export it again")


def _write_contents(directory: Path, contents: BundleContents) -> None:
    contents.catalogue.to_frame().write_parquet(directory / "items.parquet")
    contents.histories.to_frame().write_parquet(directory / "users.parquet")
    _save_tensors(contents.backbone.state_dict(), directory / "backbone.safetensors")
    _save_tensors(contents.alignment, directory / "alignment.safetensors")
    _save_tensors(contents.projector.state_dict(), directory / "projector.safetensors")
    tables = {
        "cf_vectors": contents.cf_vectors,
        "joint_item": contents.joint_item,
        "joint_text": contents.joint_text,
        "joint_genre": contents.joint_genre,
    }
    _save_tensors(tables, directory / "tables.safetensors")
    contents.index.save(directory / "items.faiss")


def _read_contents(directory: Path, manifest: Manifest, device: str) -> BundleContents:
    tables = load_file(directory / "tables.safetensors", device=device)
    catalogue = Catalogue.from_frame(pl.read_parquet(directory / "items.parquet"))
    if len(tables["joint_genre"]) != len(catalogue.genres):
        raise BundleError(f"{directory}: written for other genres than this release takes: export it again")
    backbone = create_backbone(manifest.backbone.kind, manifest.backbone.config)
    backbone.load_state_dict(load_file(directory / "backbone.safetensors"))
    projector = TokenProjector(manifest.user_size, manifest.joint_size, manifest.token_size)
    projector.load_state_dict(load_file(directory / "projector.safetensors"))
    return BundleContents(
        catalogue=catalogue,
        histories=UserHistories.from_frame(pl.read_parquet(directory / "users.parquet")),
        backbone=backbone.to(device).eval().requires_grad_(False),
        cf_vectors=tables["cf_vectors"],
        joint_item=tables["joint_item"],
        joint_text=tables["joint_text"],
        joint_genre=tables["joint_genre"],
        projector=projector.to(device).eval().requires_grad_(False),
        index=ItemIndex.load(directory / "items.faiss"),
        alignment=load_file(directory / "alignment.safetensors", device=device),
    )


def _save_tensors(tensors: dict[str, torch.Tensor], path: Path) -> None:
    save_file({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}, path)


def _clear_drafts(home: Path) -> None:
    """Remove what exports left that were killed more than a day ago."""
    for draft in home.glob(f"{DRAFT_PREFIX}*"):
        if time.time() - draft.stat().st_mtime > DRAFT_LIFE_SECONDS:
            shutil.rmtree(draft, ignore_errors=True)


def _files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file())


def _record(path: Path) -> FileRecord:
    with path.open("rb") as file:
        return FileRecord(sha256=hashlib.file_digest(file, "sha256").hexdigest(), size=path.stat().st_size)


def _canonical(content: dict[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
