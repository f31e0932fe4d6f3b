"""Reading a Parquet file into a raw table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import types

from pals_core.data.raw import RawTable, column_names, unreadable_table


def read_parquet_file(path: Path) -> RawTable:
    """Read every column that may hold times, numbers or series ids; raises InvalidTable for a damaged file.

    Raises OSError when the file cannot be read, whatever it holds.
    """
    try:
        with pq.ParquetFile(path) as file:
            names, nameless = column_names(file.schema_arrow.names)
            if not file.metadata.num_rows:
                raise unreadable_table("the file has columns and no rows")
            table = file.read(use_threads=False)
    except (pa.ArrowException, OSError) as error:
        # The system's errors have a number; what Arrow finds wrong with the bytes has none.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise unreadable_table(f"the Parquet file is damaged: {error}") from error
    columns: dict[str, pa.ChunkedArray] = {}
    unreadable: list[str] = []
    for name, column in zip(names, table.columns, strict=True):
        if types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if types.is_decimal(column.type) or types.is_null(column.type):
            column = column.cast(pa.float64())
        kind = column.type
        if types.is_nested(kind) or types.is_binary(kind) or types.is_duration(kind) or types.is_time(kind):
            unreadable.append(name)
        else:
            columns[name] = column
    if not columns:
        raise unreadable_table("no column holds times or numbers")
    frame = pa.table(columns).to_pandas(date_as_object=False, ignore_metadata=True)
    return RawTable(frame, np.arange(2, len(frame) + 2), nameless=nameless, unreadable=tuple(unreadable))
