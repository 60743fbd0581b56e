"""MovieLens of every size: `ratings.csv` and `movies.csv`, the older `.dat` files, and 100K's `u.data` and `u.item`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from models.errors import DataError
from training.data.importing.columns import Columns
from training.data.importing.delimited import DelimitedTable
from training.data.importing.dialect import Quoting, Wished
from training.data.importing.ledger import Ledger, OnBadRow
from training.data.importing.source import Advance, Source, by_name
from training.data.importing.table import Row, Table

FORMAT = "MovieLens"
RATING_COLUMNS = ("userId", "movieId", "rating", "timestamp")
MOVIE_COLUMNS = ("movieId", "title", "genres")
COLUMNS = Columns(
    user="userId",
    item="movieId",
    rating="rating",
    time="timestamp",
    item_id="movieId",
    title="title",
    categories="genres",
    separator="|",
)
ITEM_COLUMNS_100K = ("movieId", "title", "released", "released_on_video", "url")
GENRES_100K = (
    *("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama"),
    *("Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
)
NO_GENRE_100K = "unknown"
COLON = Wished("::", Quoting.NONE)
PAIRS = (("ratings.csv", "movies.csv"), ("ratings.dat", "movies.dat"), ("u.data", "u.item"))


@dataclass(frozen=True)
class Files:
    """The files of one MovieLens.

    Attributes:
        ratings, movies: the two that are read.
        genres: 100K's `u.genre`, where it is there.
    """

    ratings: Source
    movies: Source
    genres: Source | None = None


def files_of(sources: Sequence[Source]) -> Files | None:
    """The MovieLens files among `sources`; None where there are none."""
    names = {source.name for source in sources}
    for ratings, movies in PAIRS:
        if ratings in names and movies in names:
            named = by_name(sources, (ratings, movies, "u.genre"))
            files = Files(named[ratings], named[movies], named.get("u.genre"))
            if not ratings.endswith(".csv") or _has_columns(files):
                return files
    return None


def open_tables(files: Files, encoding: str | None) -> tuple[Table, Table]:
    """Ratings and movies as tables with the columns of `COLUMNS`.

    Raises:
        DataError: a file cannot be read.
    """
    if files.ratings.suffix == ".csv":
        comma = Wished(",")
        return DelimitedTable(files.ratings, encoding, comma), DelimitedTable(files.movies, encoding, comma)
    if files.ratings.suffix == ".dat":
        return (
            DelimitedTable(files.ratings, encoding, COLON, RATING_COLUMNS, FORMAT),
            DelimitedTable(files.movies, encoding, COLON, MOVIE_COLUMNS, FORMAT),
        )
    tab = Wished("\t", Quoting.NONE)
    return DelimitedTable(files.ratings, encoding, tab, RATING_COLUMNS, FORMAT), _FlaggedMovies(files, encoding)


class _FlaggedMovies(Table):
    """`u.item`: one column of 0 and 1 for each genre."""

    syntax = "delimited text"

    def __init__(self, files: Files, encoding: str | None) -> None:
        genres = GENRES_100K if files.genres is None else _genre_names(files.genres)
        self._genres = genres
        names = (*ITEM_COLUMNS_100K, *(f"genre {name}" for name in genres))
        self._table = DelimitedTable(files.movies, encoding, Wished("|", Quoting.NONE), names, FORMAT)
        super().__init__(files.movies, MOVIE_COLUMNS)

    def rows(self, wanted: Sequence[str], ledger: Ledger, advance: Advance = lambda _: None) -> Iterator[Row]:
        """See `Table.rows`."""
        for line, cells in self._table.rows(self._table.header, ledger, advance):
            flags = cells[len(ITEM_COLUMNS_100K) :]
            genres = [
                name
                for name, flag in zip(self._genres, flags, strict=True)
                if flag.strip() == "1" and name != NO_GENRE_100K
            ]
            values = {"movieId": cells[0], "title": cells[1], "genres": genres}
            yield line, [values[name] for name in wanted]

    def taken_for(self) -> Mapping[str, str]:
        """See `Table.taken_for`."""
        return self._table.taken_for()


def _genre_names(source: Source) -> tuple[str, ...]:
    """The genres of `u.genre`, by their numbers."""
    table = DelimitedTable(source, None, Wished("|", Quoting.NONE), ("name", "number"), FORMAT)
    numbered: dict[int, str] = {}
    for line, (name, number) in table.rows(("name", "number"), Ledger(OnBadRow.FAIL)):
        if not number.strip().isdigit():
            raise DataError(
                f"{table.place(line)}: {number!r} is no genre's number; mend it, or leave {source.name} out"
            )
        numbered[int(number)] = name
    if sorted(numbered) != list(range(len(numbered))):
        raise DataError(f"{source}: the genres are not numbered 0, 1, 2...; mend it, or leave {source.name} out")
    return tuple(name for _, name in sorted(numbered.items()))


def _has_columns(files: Files) -> bool:
    ratings = DelimitedTable(files.ratings, None, Wished(","))
    movies = DelimitedTable(files.movies, None, Wished(","))
    return set(RATING_COLUMNS) <= set(ratings.header) and set(MOVIE_COLUMNS) <= set(movies.header)
