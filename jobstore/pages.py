"""Cursor pages over time-ordered identifiers, newest first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from sqlalchemy import Select
    from sqlalchemy.orm import Session

Row = TypeVar("Row")


@dataclass(frozen=True)
class Page(Generic[Row]):
    """Up to `limit` rows; `next` is the cursor of the page after it, None at the end."""

    rows: Sequence[Row]
    next: str | None


def page(session: Session, query: Select[Any], row_id: Any, *, limit: int, after: str | None) -> Page[Any]:
    """Run `query` for one page, ordered by `row_id` descending, starting below the cursor `after`."""
    if after is not None:
        query = query.where(row_id < after)
    rows = session.scalars(query.order_by(row_id.desc()).limit(limit + 1)).all()
    more = len(rows) > limit
    rows = rows[:limit]
    return Page(rows, rows[-1].id if more else None)
