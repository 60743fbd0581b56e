"""Which column of a table holds what."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from models.config import Config
from models.errors import DataError
from training.data.importing.table import Table
from training.data.importing.times import looks_like_time

# Lower case, letters and digits only; the first that a header has is taken.
USER_NAMES = (
    *("userid", "user", "uid", "customerid", "reviewerid", "memberid", "visitorid", "sessionid", "userno"),
    *("username", "accountid", "viewerid", "listenerid", "readerid"),
)
ITEM_NAMES = (
    *("itemid", "item", "iid", "productid", "parentasin", "asin", "movieid", "gameid", "bookid", "isbn", "animeid"),
    *("songid", "trackid", "artistid", "articleid", "newsid", "sku", "stockcode", "businessid", "appid", "recipeid"),
    *("videoid", "courseid", "product", "movie", "itemno"),
)
TIME_NAMES = (
    *("timestamp", "time", "unixreviewtime", "unixtime", "ts", "datetime", "date", "eventtime", "reviewtime"),
    *("createdat", "tdat", "unixtimestamp", "eventtimestamp", "eventdate", "reviewdate", "ratingdate", "ratedat"),
    *("orderdate", "orderedat", "purchasedate", "purchasedat", "orderpurchasetimestamp", "invoicedate", "watchedat"),
    *("playedat", "clickedat", "viewedat", "datetimestamp", "occurredat", "reviewedat", "ratingtimestamp"),
)
RATING_NAMES = (
    *("rating", "ratings", "overall", "score", "stars", "ratingvalue", "userrating", "bookrating", "reviewrating"),
    *("reviewscore", "starrating", "ratingscore", "userscore"),
)
TITLE_NAMES = (
    *("title", "itemtitle", "name", "itemname", "movietitle", "booktitle", "producttitle", "productname"),
    *("prodname", "gametitle", "songtitle", "tracktitle", "appname", "movie"),
)
DESCRIPTION_NAMES = ("description", "itemdescription", "desc", "overview", "plot", "detaildesc", "abstract")
CATEGORY_NAMES = ("categories", "category", "genres", "genre", "itemcategory", "productcategory", "class")
EVENT_NAMES = ("event", "eventtype", "eventname", "behavior", "behaviortype", "behaviour", "action", "actiontype")
ORDER_NAMES = ("orderid", "ordernumber", "orderno", "invoiceno", "invoiceid", "basketid", "transactionid")

LIKE_RATING = re.compile(r"rating|score|stars|grade")
LIKE_CATEGORY = re.compile(r"genre|categor|^tags?$|^class|^kinds?$|department|^types?$|product(?:type|group)|groupname")
# What stands beside a review's headline, which is no title of an item.
REVIEW_NAMES = frozenset({"text", "reviewtext", "reviewbody", "helpfulvote", "verifiedpurchase", "summary", "reviewid"})


class Columns(Config):
    """Which columns hold what. None finds the column by its usual names.

    Attributes:
        user, item, time, rating, event: columns of the interactions. Without time, rows are in order.
        order: the number of an order, in the table of orders and in that of their lines.
        item_id, title, description, categories: columns of the items; the last two are optional.
        separator: what parts the names in `categories`; told by the column where None.
    """

    user: str | None = None
    item: str | None = None
    time: str | None = None
    rating: str | None = None
    event: str | None = None
    order: str | None = None
    item_id: str | None = None
    title: str | None = None
    description: str | None = None
    categories: str | None = None
    separator: str | None = None


NAMES: Mapping[str, Sequence[str]] = {
    "user": USER_NAMES,
    "item": ITEM_NAMES,
    "time": TIME_NAMES,
    "rating": RATING_NAMES,
    "event": EVENT_NAMES,
    "order": ORDER_NAMES,
    "item_id": (*ITEM_NAMES, "id"),
    "title": TITLE_NAMES,
    "description": DESCRIPTION_NAMES,
    "categories": CATEGORY_NAMES,
}


def flag(role: str) -> str:
    """The option that names the column of `role`."""
    return f"--{role.replace('_', '-')}-column"


def plain(name: str) -> str:
    """A column name as the lists of usual names have it. RecBole's `name:type` loses its type."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def find(table: Table, columns: Columns, role: str) -> str | None:
    """The column of `table` that holds `role`: the one given, else the first of a usual name.

    Raises:
        DataError: the column is there more than once.
    """
    given = getattr(columns, role)
    if role == "item_id" and given is None and columns.item in table.header:
        given = columns.item
    if given is not None:
        return given if given in table.header else None
    names = [plain(name) for name in table.header]
    found = next((names.index(name) for name in NAMES[role] if name in names), None)
    if found is None:
        return None
    if table.header.count(table.header[found]) > 1:
        raise DataError(
            f"{table.place(1)}: there are {table.header.count(table.header[found])} columns {table.header[found]};"
            " give them different names"
        )
    return table.header[found]


def need(table: Table, columns: Columns, role: str) -> str:
    """As `find`.

    Raises:
        DataError: there is none.
    """
    found = find(table, columns, role)
    if found is None:
        given = getattr(columns, role)
        wanted = f"column {given!r} is missing" if given is not None else f"no {role} column was recognised"
        raise DataError(
            f"{table.place(1)}: {wanted}; name the right one with {flag(role)}."
            f" The columns are: {', '.join(table.header)}{_headerless(table)}"
        )
    return found


def optional(table: Table, columns: Columns, role: str) -> str | None:
    """As `find`, but a column that was given must be there.

    Raises:
        DataError: it is not.
    """
    return find(table, columns, role) if getattr(columns, role) is None else need(table, columns, role)


def has_headline(table: Table) -> bool:
    """Whether `table` is of reviews, whose title is their headline."""
    return bool({plain(name) for name in table.header} & REVIEW_NAMES)


def not_taken(table: Table, taken: Sequence[str], roles: Sequence[str]) -> list[tuple[str, str]]:
    """Columns that look like a time, a rating or categories and were not taken, each with what it looks like.

    Args:
        table: is sampled.
        taken: columns that are something already.
        roles: what is looked for: time, rating, categories.
    """
    rest = [name for name in dict.fromkeys(table.header) if name not in taken]
    if not rest:
        return []
    sample = table.sample(100)
    return [
        (name, role) for name in rest for role in roles if _looks_like(role, name, [row.get(name) for row in sample])
    ][:12]


def _looks_like(role: str, name: str, values: Sequence[Any]) -> bool:
    filled = [value for value in values if value is not None and value != ""]
    if role == "time":
        if _are_counts(filled) and plain(name).endswith(("id", "code", "number", "no")):
            return False
        return looks_like_time(filled)
    if role == "rating":
        return bool(LIKE_RATING.search(plain(name))) and all(_is_number(value) for value in filled) and bool(filled)
    return bool(LIKE_CATEGORY.search(plain(name))) and bool(filled)


def _are_counts(values: Sequence[Any]) -> bool:
    return all(_is_number(value) for value in values)


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (ValueError, TypeError):
        return False
    return True


def _headerless(table: Table) -> str:
    """A hint where the first line is data."""
    if any(_is_number(name) for name in table.header):
        return ". The first line looks like data: name the columns with --no-header --columns user,item,..."
    return ""
