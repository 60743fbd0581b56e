"""Bytes: one file of input, plain or compressed, on its own or inside a zip archive.

The walk of an import begins here: bytes (this module) -> text (`text`) -> rows (`table`)
-> fields (`columns`, `items`, `interactions`) -> dataset (`builder`).
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from backports import zstd

from models.errors import DataError

Advance = Callable[[int], None]
"""Told how many more bytes of input have been read."""

BLOCK = 1 << 20
TABLE_SUFFIXES = (
    *(".csv", ".tsv", ".tab", ".dat", ".data", ".parquet", ".pq", ".json", ".jsonl", ".ndjson", ".inter", ".item"),
)
COMPRESSED_SUFFIXES = (".gz", ".gzip", ".bz2", ".xz", ".zst", ".zstd", ".zip")
ZIP_MAGIC = b"PK\x03\x04"
COMPRESSIONS: dict[bytes, tuple[str, Callable[[IO[bytes]], Any]]] = {
    b"\x1f\x8b": ("gzip", lambda raw: gzip.GzipFile(fileobj=raw)),
    b"BZh": ("bzip2", bz2.BZ2File),
    b"\xfd7zXZ\x00": ("xz", lzma.LZMAFile),
    b"\x28\xb5\x2f\xfd": ("zstd", zstd.ZstdFile),
}
DAMAGES = (EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError, zstd.ZstdError, zipfile.BadZipFile)

# What people hand in by mistake, told by the first bytes, and what to do about it.
STRANGERS = {
    b"version https://git-lfs.github.com/spec": "is a Git LFS pointer, not the data: fetch it with `git lfs pull`",
    ZIP_MAGIC: "is a zip archive inside of another or of a compressed file: unpack it first",
    b"7z\xbc\xaf": "is a 7z archive: unpack it first",
    b"Rar!": "is a RAR archive: unpack it first",
    b"SQLite format 3": "is an SQLite database: export its tables as CSV",
    b"\x89HDF": "is an HDF5 file: write its tables as Parquet",
    b"ARROW1": "is an Arrow (Feather) file: write it as Parquet",
    b"ORC": "is an ORC file: write it as Parquet",
    b"\x93NUMPY": "is a NumPy array: write it as CSV with a header",
    b"\x80\x03": "is a Python pickle: write it as Parquet",
    b"\x80\x04": "is a Python pickle: write it as Parquet",
    b"\x80\x05": "is a Python pickle: write it as Parquet",
    b"%PDF": "is a PDF: give the data as CSV",
    b"\xd0\xcf\x11\xe0": "is an Excel workbook: save its sheets as CSV",
    b"<!DOCTYPE": "is a web page, perhaps what a failed download left: fetch the data again",
    b"<!doctype": "is a web page, perhaps what a failed download left: fetch the data again",
    b"<html": "is a web page, perhaps what a failed download left: fetch the data again",
    b"<?xml": "is XML: convert it to CSV or JSON lines",
}


class DamagedStreamError(Exception):
    """A compressed stream is cut short or damaged. Turned into an error with a line by who reads it."""


@dataclass(frozen=True)
class Source:
    """One file of input.

    Attributes:
        path: the file, or the zip archive that holds it.
        member: its name in the archive; empty for a file of its own.
    """

    path: Path
    member: str = ""

    def __str__(self) -> str:
        """What messages call it."""
        return f"{self.path}/{self.member}" if self.member else str(self.path)

    @property
    def label(self) -> str:
        """Its name in the archive, or in its folder."""
        return self.member or self.path.name

    @property
    def name(self) -> str:
        """The file's name without folders and without the suffix of a compression, in lower case."""
        name = (PurePosixPath(self.member).name if self.member else self.path.name).lower()
        for suffix in COMPRESSED_SUFFIXES:
            name = name.removesuffix(suffix)
        return name

    @property
    def suffix(self) -> str:
        """The last suffix of `name`, with its dot."""
        return PurePosixPath(self.name).suffix

    @property
    def size(self) -> int:
        """Bytes to be read from the disk."""
        if not self.member:
            return self.path.stat().st_size
        with zipfile.ZipFile(self.path) as archive:
            return archive.getinfo(self.member).compress_size

    def blocks(self, advance: Advance = lambda _: None) -> Generator[bytes, None, None]:
        """The content, decompressed, in blocks of a mebibyte.

        Raises:
            DataError: the file cannot be read, is empty, or is of a kind that holds no table.
            DamagedStreamError: the compressed stream is cut short or damaged.
        """
        kind = "zip" if self.member else ""
        told = 0
        try:
            with ExitStack() as stack:
                raw, position = self._raw(stack)
                kind, stream = self._decompressed(raw, kind)
                first = True
                while block := stream.read(BLOCK):
                    if first:
                        self._refuse_strangers(block)
                    first = False
                    yield block
                    advance(position() - told)
                    told = position()
        except DAMAGES as error:
            raise DamagedStreamError(f"the {kind} stream is cut short or damaged ({error})") from None
        except (RuntimeError, NotImplementedError) as error:
            raise DataError(f"{self} cannot be unpacked: {error}; unpack the archive and give its files") from None
        except OSError as error:
            if kind and error.errno is None:
                raise DamagedStreamError(f"the {kind} stream is cut short or damaged ({error})") from None
            raise DataError(f"{self} cannot be read: {error.strerror or error}") from None
        if first:
            raise DataError(f"{self} is empty: give a file with rows")

    def head(self) -> bytes:
        """The first block, or what there is of it.

        Raises:
            DataError: as `blocks`, or the stream is damaged from the start.
        """
        blocks = self.blocks()
        try:
            return next(blocks)
        except DamagedStreamError as error:
            raise DataError(f"{self}, after line 0: {error}; fetch the file again") from None
        finally:
            blocks.close()

    def content(self) -> bytes:
        """All of it, for a format that must be read at will.

        Raises:
            DataError: as `head`.
        """
        try:
            return b"".join(self.blocks())
        except DamagedStreamError as error:
            raise DataError(f"{self}: {error}; fetch the file again") from None

    @property
    def is_plain(self) -> bool:
        """Whether the bytes on the disk are the content itself."""
        if self.member:
            return False
        with self.path.open("rb") as raw:
            magic = raw.read(8)
        return not any(magic.startswith(each) for each in COMPRESSIONS)

    def _raw(self, stack: ExitStack) -> tuple[IO[bytes], Callable[[], int]]:
        """The stream on the disk, and how far it has been read."""
        if not self.member:
            raw = stack.enter_context(self.path.open("rb"))
            return raw, raw.tell
        archive = stack.enter_context(zipfile.ZipFile(self.path))
        info = archive.getinfo(self.member)
        member = stack.enter_context(archive.open(info))
        return member, lambda: info.compress_size * member.tell() // max(info.file_size, 1)

    @staticmethod
    def _decompressed(raw: IO[bytes], kind: str) -> tuple[str, IO[bytes]]:
        buffered = raw if hasattr(raw, "peek") else io.BufferedReader(raw)  # type: ignore[type-var]
        magic = buffered.peek(8)[:8]
        for start, (name, opened) in COMPRESSIONS.items():
            if magic.startswith(start):
                return name, opened(buffered)
        return kind, buffered

    def _refuse_strangers(self, block: bytes) -> None:
        plain = block.removeprefix(b"\xef\xbb\xbf").lstrip()
        for start, what in STRANGERS.items():
            if plain.startswith(start) or block.startswith(start):
                raise DataError(f"{self} {what}")
        if block[257:262] == b"ustar":
            raise DataError(f"{self} is a tar archive: unpack it and give its files")


def by_name(sources: Iterable[Source], names: Iterable[str]) -> dict[str, Source]:
    """The sources of these names.

    Raises:
        DataError: several have the same name, such as those of two sizes of MovieLens in one archive.
    """
    wanted = set(names)
    found: dict[str, Source] = {}
    for source in sources:
        if source.name in wanted and source.name in found:
            raise DataError(
                f"there are several files {source.name} ({found[source.name]}, {source}): unpack them, and import the"
                " files of one data set"
            )
        if source.name in wanted:
            found[source.name] = source
    return found


def find_sources(given: Iterable[Path]) -> list[Source]:
    """All files that `given` stands for: a folder stands for its files, a zip archive for its members.

    Raises:
        DataError: one of them does not exist or is given twice, or an archive is damaged or is no archive of tables.
    """
    found: list[Source] = []
    given_files: set[Path] = set()
    for path in given:
        if not path.exists():
            raise DataError(f"{path} does not exist: give existing files or a folder")
        files = [file for file in sorted(path.iterdir()) if file.is_file()] if path.is_dir() else [path]
        files = [file for file in files if not _is_hidden(file.name, listed=file == path)]
        twice = next((file for file in files if file.resolve() in given_files), None)
        if twice is not None:
            raise DataError(f"{twice} is given twice, so its rows would count twice: give it once")
        given_files |= {file.resolve() for file in files}
        for file in files:
            found += _members(file)
    return found


def _members(path: Path) -> list[Source]:
    with path.open("rb") as raw:
        if not raw.read(4).startswith(ZIP_MAGIC):
            return [Source(path)]
    try:
        with zipfile.ZipFile(path) as archive:
            names = sorted(info.filename for info in archive.infolist() if not info.is_dir())
    except zipfile.BadZipFile as error:
        raise DataError(f"{path}: the zip archive is cut short or damaged ({error}); fetch the file again") from None
    if "[Content_Types].xml" in names:
        raise DataError(f"{path} is an Excel workbook: save its sheets as CSV")
    shown = [name for name in names if "__MACOSX" not in name and not _is_hidden(PurePosixPath(name).name)]
    if not shown:
        raise DataError(f"{path} is an empty zip archive: give a file with rows")
    return [Source(path, name) for name in shown]


def _is_hidden(name: str, listed: bool = False) -> bool:
    """Files that systems leave beside the data: `.DS_Store`, `._ratings.csv`, `_SUCCESS`."""
    return not listed and name.startswith((".", "_"))


def source_name(path: Path) -> str:
    """What a dataset from there is called: `shop` for a file `shop.csv.gz`, `shop.v1` for a folder `shop.v1`."""
    name = path.resolve().name
    suffixes = (*TABLE_SUFFIXES, *COMPRESSED_SUFFIXES) if path.is_file() else ()
    while (suffix := PurePosixPath(name).suffix) and suffix.lower() in suffixes:
        name = name.removesuffix(suffix)
    return name or "dataset"
