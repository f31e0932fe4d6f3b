"""Metrics as they are plotted."""

from __future__ import annotations

from pydantic import Field

from api.schemas.bodies import ResponseBody


class SeriesBody(ResponseBody):
    """One series in columns: `values[i]` was measured at optimiser step `steps[i]`."""

    steps: list[int]
    values: list[float]


class MetricsBody(ResponseBody):
    job_id: str
    series: dict[str, SeriesBody] = Field(description="By name; thinned to max_points, always with the last point.")
