"""How PostgreSQL goes about the statements that some code makes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, event, text

from jobstore.database import Database

PLANNED = re.compile(r"\s*(SELECT|UPDATE|DELETE|WITH)\b", re.IGNORECASE)
EXPLAIN = "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, BUFFERS OFF, SUMMARY ON) "


@dataclass(frozen=True)
class Plan:
    """What EXPLAIN ANALYZE says of one statement."""

    statement: str
    lines: tuple[str, ...]

    def scans_all_of(self, tables: set[str]) -> list[str]:
        """Those of the tables that are read from end to end."""
        return [table for table in sorted(tables) if any(f"Seq Scan on {table}" in line for line in self.lines)]


@contextmanager
def overheard(engine: Engine) -> Iterator[dict[str, Any]]:
    """Collect the statements made in the block, each once, with the parameters that it was first made with."""
    statements: dict[str, Any] = {}

    def listen(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if PLANNED.match(statement) and " FROM " in statement.replace("\n", " "):
            statements.setdefault(statement, parameters)

    event.listen(engine, "before_cursor_execute", listen)
    try:
        yield statements
    finally:
        event.remove(engine, "before_cursor_execute", listen)


def explain(database: Database, statements: dict[str, Any]) -> list[Plan]:
    """The plans of statements, which are carried out and taken back."""
    plans = []
    for statement, parameters in statements.items():
        with database.engine.connect() as connection:
            connection.execute(text("SET LOCAL jit = off"))
            rows = connection.exec_driver_sql(EXPLAIN + statement, parameters).all()
            connection.rollback()
        plans.append(Plan(statement, tuple(row[0] for row in rows)))
    return plans


def large_tables(database: Database, rows: int) -> set[str]:
    """Tables that have at least so many rows, as the planner thinks."""
    query = text("SELECT relname FROM pg_class WHERE relkind = 'r' AND reltuples >= :rows AND relname !~ '^pg_'")
    with database.engine.connect() as connection:
        return {*connection.scalars(query, {"rows": rows})}
