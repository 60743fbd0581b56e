"""Text: the bytes of a source as lines, in an encoding that is given or told by the bytes."""

from __future__ import annotations

import codecs
import re
from collections.abc import Generator, Iterator

from models.errors import ConfigError, DataError
from training.data.importing.source import Advance, DamagedStreamError, Source

MAX_LINE_BYTES = 64 << 20
SAMPLE = 1 << 16
# Longest first: the mark of UTF-32 begins as that of UTF-16 does.
MARKS = {
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
WIDE = ("utf-16", "utf-32")
SINGLE_BYTE = "cp1252"
MARK_AT_START = re.compile("^\ufeff+", re.MULTILINE)
HIGH_RUN = re.compile(rb"[\x80-\xff]+")


class DamagedLine(str):
    """A line with bytes that are not of the file's encoding; they are replaced."""

    __slots__ = ()


class Text:
    """The lines of a text file.

    The encoding is the one given, else told by a byte order mark or by the zero bytes of UTF-16; else it is UTF-8
    until a line is not. Everything before was ASCII then, or the file is UTF-8 with damaged lines: a file whose
    first lines beyond ASCII are not UTF-8 is Windows-1252, the superset of Latin-1.

    Args:
        source: the bytes.
        encoding: None tells it by the bytes.
        single_byte: whether Windows-1252 is possible; JSON is UTF-8 by definition.

    Attributes:
        encoding: as far as it is known; final when all lines are read.
        told_by: how it is known.
    """

    def __init__(self, source: Source, encoding: str | None = None, single_byte: bool = True) -> None:
        self.source = source
        self._single_byte = single_byte
        self._settled = encoding is not None
        self._mixed = False
        head = source.head()
        mark, of_mark = next(((mark, name) for mark, name in MARKS.items() if head.startswith(mark)), (b"", None))
        self._mark = mark if encoding is None or _same(of_mark, encoding) else b""
        self.encoding, self.told_by = "utf-8", "the bytes"
        if encoding is not None:
            self.encoding, self.told_by = codecs.lookup(encoding).name, "--encoding"
            if self.encoding in WIDE:
                self.encoding = of_mark or f"{self.encoding}-le"
        elif of_mark is not None:
            self.encoding, self.told_by, self._settled = of_mark, "its byte order mark", True
        elif b"\0" in head[:SAMPLE]:
            self._settle_zeros(head[:SAMPLE])
        self._line_end = _line_end(head)

    def lines(self, advance: Advance = lambda _: None) -> Generator[list[str], None, None]:
        """Blocks of lines, without line ends.

        Raises:
            DataError: the stream is damaged, a line has no end, or the encoding cannot be told.
        """
        count = 0
        try:
            for ready in self._whole_lines(advance):
                block = self._decoded(ready)
                count += len(block)
                yield block
        except DamagedStreamError as error:
            raise DataError(f"{self.source}, after line {count}: {error}; fetch the file again") from None

    def sample(self) -> tuple[list[str], bool]:
        """The lines of the first block, the last left out where it may be cut; and whether there are more."""
        blocks = self.lines()
        try:
            lines = next(blocks, [])
            return lines, next(blocks, None) is not None
        finally:
            blocks.close()

    def _whole_lines(self, advance: Advance) -> Iterator[bytes]:
        wide = self.encoding.startswith(WIDE)
        end = "\n".encode(self.encoding) if wide else self._line_end
        step = len(end) if wide else 1
        rest, first = b"", True
        for block in self.source.blocks(advance):
            joined = rest + (block.removeprefix(self._mark) if first else block)
            first = False
            cut = _last_end(joined, end, step)
            if cut:
                yield joined[:cut]
            rest = joined[cut:]
            if len(rest) > MAX_LINE_BYTES:
                raise DataError(
                    f"{self.source} has a line of more than {MAX_LINE_BYTES >> 20} MiB: it is no table; give a CSV,"
                    " JSON or Parquet file"
                )
        if rest:
            yield rest

    def _decoded(self, ready: bytes) -> list[str]:
        if self._mixed and not ready.isascii():
            return self._decoded_singly(ready)
        try:
            text = ready.decode(self.encoding)
        except UnicodeDecodeError:
            if not self._settled:
                self._settle(ready)
                return self._decoded(ready)
            return self._decoded_singly(ready)
        if not self._settled and not ready.isascii():
            self._settled = True
        return _split(text, self._line_end)

    def _decoded_singly(self, ready: bytes) -> list[str]:
        """Line by line, so that only the damaged ones are marked."""
        if self.encoding.startswith(WIDE):
            lines = _split(ready.decode(self.encoding, errors="replace"), b"\n")
            return [DamagedLine(line) if "\ufffd" in line else line for line in lines]
        lines = []
        for raw in ready.removesuffix(self._line_end).split(self._line_end):
            # Files put together from others have both; a line of Latin-1 is hardly ever UTF-8 by chance.
            encoding = "utf-8" if self._mixed and _is_utf8(raw) else self.encoding
            try:
                lines.append(raw.decode(encoding).removesuffix("\r"))
            except UnicodeDecodeError:
                lines.append(DamagedLine(raw.decode(self.encoding, errors="replace").removesuffix("\r")))
        return lines

    def _settle(self, ready: bytes) -> None:
        """Decide between UTF-8 with damaged lines and Windows-1252 by the first lines beyond ASCII."""
        self._settled = True
        beyond = [line for line in ready.split(b"\n") if not line.isascii()]
        sound = sum(_is_utf8(line) for line in beyond)
        if not self._single_byte or 2 * sound >= len(beyond):
            return
        runs = HIGH_RUN.findall(ready)
        lone = sum(len(run) <= 2 for run in runs)
        if 2 * lone < len(runs):
            raise DataError(
                f"{self.source} is not UTF-8, and not Latin-1 by its looks: name its encoding with --encoding,"
                " for example cp1251, gb18030, shift_jis or euc-kr"
            )
        self.encoding, self.told_by, self._mixed = SINGLE_BYTE, "its bytes; lines of UTF-8 as such", True

    def _settle_zeros(self, head: bytes) -> None:
        """UTF-16 without a mark has its zero bytes on one side; other zero bytes are no text."""
        even, odd = head[::2].count(0), head[1::2].count(0)
        half = max(len(head) // 2, 1)
        if max(even, odd) > 0.3 * half and min(even, odd) < 0.05 * half:
            self.encoding = "utf-16-le" if odd > even else "utf-16-be"
            self.told_by, self._settled = "its zero bytes", True
        elif even + odd > 0.1 * len(head):
            raise DataError(f"{self.source} is a binary file, no text: give a CSV, JSON or Parquet file")


def check_encoding(encoding: str | None) -> None:
    """Refuse a name that is no encoding of text.

    Raises:
        ConfigError: it is none.
    """
    try:
        if encoding is not None:
            "a".encode(encoding)
    except (LookupError, UnicodeError):
        raise ConfigError(
            f"encoding {encoding!r} is unknown: name another, such as latin-1, or leave --encoding out"
        ) from None


def _same(of_mark: str | None, encoding: str) -> bool:
    name = codecs.lookup(encoding).name
    return of_mark is not None and (of_mark.startswith(name) or name == "utf-8-sig")


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _last_end(joined: bytes, end: bytes, step: int) -> int:
    """The position after the last line end that is aligned to `step`; 0 where there is none."""
    place = joined.rfind(end)
    while place >= 0 and place % step:
        place = joined.rfind(end, 0, place + len(end) - 1)
    return place + len(end) if place >= 0 else 0


def _line_end(head: bytes) -> bytes:
    """A carriage return where lines end in these alone; a text in them may hold the odd line feed."""
    alone = head.count(b"\r") - head.count(b"\r\n")
    return b"\r" if alone > head.count(b"\n") else b"\n"


def _split(text: str, line_end: bytes) -> list[str]:
    if "\r" in text:
        text = text.replace("\r\n", "\n" if line_end == b"\n" else "\r")
    if "\ufeff" in text:
        # Files put together from others have their byte order marks inside.
        text = MARK_AT_START.sub("", text)
    lines = text.split("\r" if line_end == b"\r" else "\n")
    if line_end == b"\r" and "\n" in text:
        lines = [line.removeprefix("\n") for line in lines]
    if not lines[-1]:
        lines.pop()
    return lines
