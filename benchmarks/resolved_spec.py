"""The spec of a benchmark's training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pals_core.data.audit import profile_of
from pals_core.data.table import Table
from pals_core.errors import InvalidSpec
from pals_core.feasibility import check, resolve
from pals_core.spec import Spec
from pals_core.training.train import parse_spec


def resolved(fields: Mapping[str, Any], table: Table) -> Spec:
    """Return the resolved spec of these fields; raises InvalidSpec when it cannot run on the table."""
    profile = profile_of(table)
    spec = resolve(parse_spec(fields), profile)
    if problems := check(spec, profile):
        raise InvalidSpec(problems[0].message, problems)
    return spec
