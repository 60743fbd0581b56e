"""MovieLens folders: `ratings.csv` and `movies.csv`, or the older `ratings.dat` and `movies.dat`."""

from __future__ import annotations

from pathlib import Path

from models.errors import DataError
from training.data.importing.builder import DatasetBuilder
from training.data.importing.reading import Advance, csv_table, dat_table
from training.data.importing.tabular import Columns, read_tables

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
)


def is_movielens(folder: Path) -> bool:
    """Whether `folder` holds MovieLens ratings and movies."""
    if (folder / "ratings.dat").is_file() and (folder / "movies.dat").is_file():
        return True
    ratings, movies = folder / "ratings.csv", folder / "movies.csv"
    if not (ratings.is_file() and movies.is_file()):
        return False
    return set(RATING_COLUMNS) <= set(csv_table(ratings, lambda _: None, encoding="latin-1").header)


def movielens_files(folder: Path) -> tuple[Path, Path]:
    """The ratings and the movies of `folder`.

    Raises:
        DataError: they are not there.
    """
    for suffix in (".csv", ".dat"):
        ratings, movies = folder / f"ratings{suffix}", folder / f"movies{suffix}"
        if ratings.is_file() and movies.is_file():
            return ratings, movies
    raise DataError(
        f"{folder} holds neither ratings.csv and movies.csv nor ratings.dat and movies.dat:"
        " give an unpacked MovieLens folder, or choose another --format"
    )


def read_movielens(
    ratings: Path,
    movies: Path,
    builder: DatasetBuilder,
    advance: Advance,
    columns: Columns = COLUMNS,
    encoding: str | None = None,
) -> None:
    """Read both files. Genres become categories; the year stays in the title.

    Raises:
        DataError: a column is missing, or a row is bad and that is an error.
    """
    if ratings.suffix == ".dat":
        tables = (
            dat_table(ratings, RATING_COLUMNS, advance, encoding),
            dat_table(movies, MOVIE_COLUMNS, advance, encoding),
        )
    else:
        tables = (
            csv_table(ratings, advance, encoding or "utf-8", ","),
            csv_table(movies, advance, encoding or "utf-8", ","),
        )
    read_tables(tables[:1], tables[1:], COLUMNS.merged(columns), builder)
