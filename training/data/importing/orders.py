"""Rows of orders joined with their lines: who and when stand in one file, what in the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from training.data.importing.columns import Columns, need
from training.data.importing.ids import IdColumn
from training.data.importing.ledger import BadRowError, Ledger, OnBadRow
from training.data.importing.source import Advance, Source
from training.data.importing.table import Row, Table


class OrderedTable(Table):
    """The lines, each with the columns of its order. All orders are held in memory.

    Args:
        orders: has the order's number and its user.
        lines: has the order's number and an item.
        columns: which columns hold what.
        on_bad_row: whether an order without number, or a second one of the same, is an error.

    Attributes:
        orders: the ledger of the orders.
    """

    def __init__(self, orders: Table, lines: Table, columns: Columns, on_bad_row: OnBadRow) -> None:
        self._orders_table, self._lines_table = orders, lines
        self._order_key = need(orders, columns, "order")
        self._line_key = need(lines, columns, "order")
        self.orders = Ledger(on_bad_row)
        self.unit, self.syntax = lines.unit, lines.syntax
        self._of_orders = [name for name in orders.header if name not in lines.header]
        self._found: dict[str, tuple[Any, ...]] | None = None
        super().__init__(lines.source, (*lines.header, *self._of_orders))
        self.types = {**orders.types, **lines.types}

    @property
    def sources(self) -> Sequence[Source]:
        """The files that it is read from."""
        return (*self._orders_table.sources, *self._lines_table.sources)

    def rows(self, wanted: Sequence[str], ledger: Ledger, advance: Advance = lambda _: None) -> Iterator[Row]:
        """See `Table.rows`."""
        orders = self._read_orders(advance)
        ids = IdColumn("order", self._lines_table.column(self._line_key))
        of_lines = [self._line_key, *(name for name in wanted if name not in self._of_orders)]
        for number, cells in self._lines_table.rows(of_lines, ledger, advance):
            try:
                order = orders.get(ids.parse(cells[0]))
            except BadRowError as error:
                ledger.bad(self.place(number), error)
                continue
            if order is None:
                detail = f"order {cells[0]!r} is not among the orders; add it, or remove its lines"
                ledger.bad(self.place(number), BadRowError("unknown order", detail))
                continue
            values = dict(zip(of_lines, cells, strict=True)) | dict(zip(self._of_orders, order, strict=True))
            yield number, [values[name] for name in wanted]

    def taken_for(self) -> Mapping[str, str]:
        """See `Table.taken_for`."""
        return {**self._lines_table.taken_for(), "orders": f"{self._orders_table.source.label} by {self._order_key}"}

    def _read_orders(self, advance: Advance) -> dict[str, tuple[Any, ...]]:
        if self._found is not None:
            return self._found
        table, ledger = self._orders_table, self.orders
        ids = IdColumn("order", table.column(self._order_key))
        found: dict[str, tuple[Any, ...]] = {}
        for number, cells in table.rows([self._order_key, *self._of_orders], ledger, advance):
            try:
                order = ids.parse(cells[0])
                if order in found:
                    raise BadRowError("order twice", f"order {order!r} came before; leave one of them")
            except BadRowError as error:
                ledger.bad(table.place(number), error)
                continue
            found[order] = tuple(cells[1:])
        self._found = found
        return found
