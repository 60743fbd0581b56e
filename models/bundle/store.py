"""The bundle: all that is specific to one catalogue, as one immutable, hashed directory.

A bundle is written under a temporary name and renamed, so a half-written one does not exist. Every file is named in
`manifest.json` with its SHA-256, and the manifest carries its own. Nothing in it is pickled.

A *bundle home* holds the versions of one catalogue and a link `current` to the one in use:

    bundles/movies/20260102-030405-1a2b3c4d/
    bundles/movies/current -> 20260102-030405-1a2b3c4d
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from models.alignment.projection import TitleProjector, TokenProjector
from models.alignment.user_head import UserHead
from models.alignment.words import WordEncoder
from models.backbones import Backbone, create_backbone
from models.backbones.external import External
from models.bundle.catalogue_model import CatalogueModel
from models.bundle.index import ItemIndex
from models.bundle.manifest import MANIFEST, SCHEMA_VERSION, BackboneRecord, FileRecord, Manifest, Origin, load_manifest
from models.bundle.signal_tables import SignalTables
from models.catalogue import Catalogue
from models.errors import BundleError, ConfigError
from models.histories import UserHistories
from models.llm.law import TokenLaw

CURRENT = "current"
TEXT_ENCODER = "text_encoder"
USER_HEAD_FILE = "user_head.safetensors"
SECOND_FILE = "second.safetensors"
TITLE_PROJECTOR_FILE = "title_projector.safetensors"
DRAFT_PREFIX = ".writing-"
DRAFT_LIFE_SECONDS = 86_400


@dataclass(frozen=True)
class Bundle:
    """A verified bundle in memory."""

    path: Path
    manifest: Manifest
    model: CatalogueModel

    @property
    def version(self) -> str:
        """The bundle version, part of every cache key."""
        return self.manifest.bundle_version

    def check_llm(self, fingerprint: str, name: str, reading: str) -> None:
        """Refuse an LLM other than the one this bundle was aligned with, or one that reads texts otherwise.

        Args:
            fingerprint: of its config and weights.
            name: as the user named it.
            reading: see `models.prompts.anchor.reading_of`.

        Raises:
            BundleError: the fingerprints differ.
        """
        aligned = self.manifest.llm
        if fingerprint == aligned.fingerprint and aligned.reading not in ("", reading):
            raise BundleError(
                f"{self.path / MANIFEST}: LLM '{name}' has another tokenizer than the one the bundle was made with:"
                " put its own back, or run stage2 and export again"
            )
        if fingerprint != aligned.fingerprint:
            raise BundleError(
                f"{self.path / MANIFEST}: the bundle was aligned with LLM '{aligned.name}'"
                f" ({aligned.fingerprint[:12]}), but '{name}' ({fingerprint[:12]}) is loaded:"
                " serve it with its own LLM, or run stage2 and export again"
            )


def write_bundle(home: Path, model: CatalogueModel, origin: Origin, save_text_encoder: Callable[[Path], None]) -> Path:
    """Write a new version into bundle home `home`, publish it as `current`, and return its path.

    Args:
        home: created if missing; other versions in it are left alone.
        model: what to write.
        origin: what the manifest says of it.
        save_text_encoder: writes the encoder into the folder it is given, in its library's own format.
    """
    created_at = datetime.now(UTC).replace(microsecond=0)
    home.mkdir(parents=True, exist_ok=True)
    _clear_drafts(home)
    draft = Path(tempfile.mkdtemp(prefix=DRAFT_PREFIX, dir=home))
    draft.chmod(0o755)
    try:
        _write_model(draft, model)
        save_text_encoder(draft / TEXT_ENCODER)
        files = {path.relative_to(draft).as_posix(): _record(path) for path in _files(draft)}
        manifest = _describe(model, origin, created_at, files)
        digest = hashlib.sha256(manifest.serialise()).hexdigest()
        version = f"{created_at:%Y%m%d-%H%M%S}-{digest[:8]}"
        manifest = manifest.model_copy(update={"bundle_version": version})
        (draft / MANIFEST).write_bytes(manifest.serialise())
        for path in _files(draft):
            path.chmod(0o644)  # safetensors writes for the owner alone; the service may be another user
            _sync(path)
        final = home / manifest.bundle_version
        if final.exists() and is_intact(final):
            shutil.rmtree(draft)
        else:
            shutil.rmtree(final, ignore_errors=True)
            draft.rename(final)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    publish(final)
    return final


def _describe(model: CatalogueModel, origin: Origin, created_at: datetime, files: dict[str, FileRecord]) -> Manifest:
    return Manifest(
        **vars(origin),
        schema_version=SCHEMA_VERSION,
        bundle_version="",
        created_at=created_at,
        user_size=model.cf_vectors.shape[1],
        joint_size=model.joint_item.shape[1],
        token_size=model.projector.token_size,
        items=len(model.catalogue),
        users=len(model.histories),
        backbone=_record_of(model.backbone),
        second=None if model.second is None else _record_of(model.second),
        files=files,
    )


def _record_of(backbone: Backbone) -> BackboneRecord:
    return BackboneRecord(kind=backbone.kind, config=backbone.config.model_dump(mode="json"))


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


def load_bundle(path: Path) -> Bundle:
    """Load and verify the bundle at `path`, a version directory or a bundle home.

    It stays on the CPU, whatever the LLM runs on: what is computed of it is little, and is not to wait for a busy GPU.

    Raises:
        BundleError: a file is missing, damaged or not readable; names the file.
    """
    directory = resolve_bundle(path)
    manifest = load_manifest(directory)
    verify_files(directory, manifest)
    try:
        model = _read_model(directory, manifest)
    except (SafetensorError, pl.exceptions.PolarsError, RuntimeError, KeyError) as error:
        raise BundleError(f"{directory}: files are intact but do not fit together: {error}") from error
    return Bundle(directory, manifest, model)


def is_intact(version: Path) -> bool:
    """Whether all files of a version are as they were written."""
    try:
        verify_files(version, load_manifest(version))
    except BundleError:
        return False
    return True


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


def _write_model(directory: Path, model: CatalogueModel) -> None:
    model.catalogue.to_frame().write_parquet(directory / "items.parquet")
    model.histories.to_frame().write_parquet(directory / "users.parquet")
    model.earlier.to_frame().write_parquet(directory / "seen.parquet")
    _save_tensors(model.backbone.weights(), directory / "backbone.safetensors")
    _save_tensors(model.alignment, directory / "alignment.safetensors")
    _save_tensors(model.projector.state_dict(), directory / "projector.safetensors")
    tables = {
        "cf_vectors": model.cf_vectors,
        "joint_item": model.joint_item,
        "joint_text": model.joint_text,
        "joint_genre": model.joint_genre,
        "title_log_probs": torch.from_numpy(model.title_log_probs),
    }
    decoded = {"decoded_item": model.decoded_item, "decoded_text": model.decoded_text}
    tables |= {name: table for name, table in decoded.items() if table is not None}
    _save_tensors(tables, directory / "tables.safetensors")
    model.index.save(directory / "items.faiss")
    model.signals.save(directory / "signals.safetensors")
    if model.words is not None:
        model.words.save(directory)
    if model.law is not None:
        model.law.save(directory)
    if model.second is not None:
        _save_tensors(model.second.weights(), directory / SECOND_FILE)
    if model.title_projector is not None:
        _save_tensors(model.title_projector.state_dict(), directory / TITLE_PROJECTOR_FILE)
    if model.user_head is not None:
        _save_tensors(model.user_head.state_dict(), directory / USER_HEAD_FILE)


def _read_model(directory: Path, manifest: Manifest) -> CatalogueModel:
    tables = load_file(directory / "tables.safetensors")
    catalogue = Catalogue.from_frame(pl.read_parquet(directory / "items.parquet"))
    if len(tables["joint_genre"]) != len(catalogue.genres):
        raise BundleError(f"{directory}: written for other genres than this release takes: export it again")
    sizes = manifest.user_size, manifest.joint_size, manifest.token_size
    projector = TokenProjector(*sizes)
    projector.load_state_dict(load_file(directory / "projector.safetensors"))
    return CatalogueModel(
        catalogue=catalogue,
        histories=UserHistories.from_frame(pl.read_parquet(directory / "users.parquet")),
        backbone=_read_backbone(directory / "backbone.safetensors", manifest.backbone),
        cf_vectors=tables["cf_vectors"],
        joint_item=tables["joint_item"],
        joint_text=tables["joint_text"],
        joint_genre=tables["joint_genre"],
        projector=projector.eval().requires_grad_(False),
        index=ItemIndex.load(directory / "items.faiss"),
        alignment=load_file(directory / "alignment.safetensors"),
        signals=SignalTables.load(directory / "signals.safetensors"),
        words=WordEncoder.load(directory),
        title_log_probs=tables["title_log_probs"].numpy(),
        title_projector=_read_title_projector(directory / TITLE_PROJECTOR_FILE, sizes),
        user_head=_read_user_head(directory / USER_HEAD_FILE),
        second=None if manifest.second is None else _read_backbone(directory / SECOND_FILE, manifest.second),
        law=_read_law(directory, len(catalogue)),
        decoded_item=tables.get("decoded_item"),
        decoded_text=tables.get("decoded_text"),
        earlier=UserHistories.from_frame(pl.read_parquet(directory / "seen.parquet")),
    )


def _read_law(directory: Path, items: int) -> TokenLaw | None:
    """How tokens are read without the LLM, if the bundle has that.

    Raises:
        BundleError: it is of another release or of other items.
    """
    try:
        law = TokenLaw.load(directory)
    except ConfigError as error:
        raise BundleError(f"{error.args[0]}: export it again") from error
    if law is not None and len(law.beginnings) != items + 1:
        raise BundleError(f"{directory}: the law of its tokens is of other items: export it again")
    return law


def _read_backbone(path: Path, record: BackboneRecord) -> Backbone:
    backbone = create_backbone(record.kind, record.config)
    backbone.load_state_dict(load_file(path))
    if isinstance(backbone, External) and len(backbone.program):
        try:
            backbone.load_program()  # an operator is told of what is missing, not the first user
        except ConfigError as error:
            raise BundleError(f"{path}: {error}") from error
    return backbone.eval().requires_grad_(False)


def _read_title_projector(path: Path, sizes: tuple[int, int, int]) -> TitleProjector | None:
    if not path.is_file():
        return None
    projector = TitleProjector(*sizes)
    projector.load_state_dict(load_file(path))
    return projector.eval().requires_grad_(False)


def _read_user_head(path: Path) -> UserHead | None:
    return UserHead.of_weights(load_file(path)) if path.is_file() else None


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


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
