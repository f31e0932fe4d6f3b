from __future__ import annotations

import re

from jobstore.ids import Prefix, new_id


def test_an_identifier_tells_what_it_names_and_fits_its_column() -> None:
    for prefix in Prefix:
        made = new_id(prefix)
        assert re.fullmatch(rf"{prefix}_[0-9a-f]{{28}}", made)
        assert len(made) <= 40


def test_identifiers_sort_by_creation() -> None:
    made = [new_id(Prefix.JOB) for _ in range(20_000)]
    moments = [name[:16] for name in made]

    assert moments == sorted(moments)
    assert len({*moments}) > 1
    assert len({*made}) == len(made)
