"""Job stores of a size that nobody waits for: rows made by the database itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Integer, TextClause, bindparam, text
from sqlalchemy.orm import Session

from jobstore.database import Database
from jobstore.tables import DEFAULT_TENANT

LIMITS = {"max_attempts": 3, "max_pending_seconds": None, "max_runtime_seconds": None}

NUMBERS = ("count", "first", "kept", "last", "tenant_count", "total")


def numbered(sql: str) -> TextClause:
    """A statement whose numbers are integers to the database, however small."""
    return text(sql).bindparams(*(bindparam(name, type_=Integer) for name in NUMBERS if f":{name}" in sql))


DATASET = text("""
    INSERT INTO artifacts (id, tenant_id, key, status, sha256, size, created_at)
    VALUES ('art_data', :tenant, 'data', 'published', :sha256, 1, now());
""")
DATASET_ROW = text("""
    INSERT INTO datasets (id, tenant_id, name, status, artifact_id, media_type, created_at)
    VALUES ('ds_0', :tenant, 'load', 'ready', 'art_data', 'text/csv', now())
""")
TURNS = text("INSERT INTO turns (tenant_id, served) SELECT tenant, 0 FROM unnest(CAST(:tenants AS text[])) tenant")
QUEUED = numbered("""
    INSERT INTO jobs (id, tenant_id, name, dataset_id, spec, limits, metadata, priority, device_class, status,
                      created_at, queued_at, attempt, losses, runtime_seconds, micro_batches, event_seq, report_seq)
    SELECT 'job_f' || lpad(to_hex(i), 27, '0'), (CAST(:tenants AS text[]))[1 + i % :tenant_count], 'job ' || i, 'ds_0',
           CAST(:spec AS jsonb), CAST(:limits AS jsonb), '{}', CASE WHEN i % 10 = 0 THEN 5 ELSE 0 END,
           (ARRAY['cpu', 'auto', 'auto', 'cuda'])[1 + (i / :tenant_count) % 4], 'queued',
           now() - make_interval(secs => :count - i), now() - make_interval(secs => :count - i), 0, 0, 0, 1, 1, 0
    FROM generate_series(1, :count) i
""")
# One in seven failed, one in fifty was cancelled; an ended job a second, for about four months in ten million.
ENDED = numbered("""
    INSERT INTO jobs (id, tenant_id, name, dataset_id, spec, limits, metadata, priority, device_class, status,
                      created_at, queued_at, started_at, finished_at, attempt, losses, runtime_seconds, micro_batches,
                      event_seq, report_seq)
    SELECT 'job_0' || lpad(to_hex(i), 27, '0'), (CAST(:tenants AS text[]))[1 + i % :tenant_count], 'job', 'ds_0',
           CAST(:spec AS jsonb), CAST(:limits AS jsonb), '{}', 0, 'auto',
           CASE WHEN i % 50 = 0 THEN 'cancelled' WHEN i % 7 = 0 THEN 'failed' ELSE 'succeeded' END,
           ended, ended, ended, ended, 1, 0, 60, 1, 9, 3
    FROM (SELECT i, now() - make_interval(secs => :total - i) AS ended FROM generate_series(:first, :last) i) AS series
""")
# The last of them, of less than a week, have a checkpoint and an event, and the failed among these a state.
KEPT = (
    numbered("""
    INSERT INTO artifacts (id, tenant_id, key, status, sha256, size, created_at)
    SELECT kind || i, 'a', kind || i, 'published', '', 1, now()
    FROM generate_series(:total - :kept + 1, :total) i, unnest(ARRAY['art_c', 'art_s']) kind
"""),
    numbered("""
    INSERT INTO checkpoints (id, tenant_id, job_id, artifact_id, step, epoch, is_best, is_last, sparsity,
                             validation_loss, cost, created_at)
    SELECT 'ckpt_' || i, 'a', 'job_0' || lpad(to_hex(i), 27, '0'), 'art_c' || i, 1, 1, true, true, 0.9, 1, '{}', now()
    FROM generate_series(:total - :kept + 1, :total) i
"""),
    numbered("""
    INSERT INTO states (job_id, step, tenant_id, artifact_id, saved_by, created_at)
    SELECT 'job_0' || lpad(to_hex(i), 27, '0'), 1, 'a', 'art_s' || i, 'job_0',
           now() - make_interval(secs => :total - i)
    FROM generate_series(:total - :kept + 1, :total) i WHERE i % 7 = 0 AND i % 50 <> 0
"""),
    numbered("""
    INSERT INTO events (job_id, seq, tenant_id, created_at, attempt, type, level, message, data)
    SELECT 'job_0' || lpad(to_hex(i), 27, '0'), 1, 'a', now(), 1, 'state', 'info', 'queued', '{}'
    FROM generate_series(:total - :kept + 1, :total) i
"""),
)
INDEXES = text("""
    SELECT indexname, indexdef FROM pg_indexes
    WHERE schemaname = 'public' AND tablename = 'jobs' AND indexname NOT LIKE 'pk_%'
""")
LEASED = numbered("""
    UPDATE jobs SET status = 'running', attempt = 1, worker_id = 'wrk_gone', lease_token = 'x' || id,
                    started_at = now(), lease_expires_at = now() + make_interval(secs => :lease_seconds)
    WHERE id IN (SELECT id FROM jobs WHERE status = 'queued' ORDER BY id DESC LIMIT :count)
""")


def tenants(count: int) -> list[str]:
    """Names; the first is the one that the API serves."""
    return [DEFAULT_TENANT, *(f"tenant_{number}" for number in range(1, count))]


def add_queue(session: Session, *, jobs: int, tenant_count: int, spec: dict[str, Any]) -> None:
    """Queue jobs of several tenants, as many each: priorities 0 and 5, a quarter of them for a GPU."""
    session.execute(DATASET, {"tenant": DEFAULT_TENANT, "sha256": "0" * 64})
    session.execute(DATASET_ROW, {"tenant": DEFAULT_TENANT})
    session.execute(TURNS, {"tenants": tenants(tenant_count)})
    session.execute(
        QUEUED,
        {
            "count": jobs,
            "tenants": tenants(tenant_count),
            "tenant_count": tenant_count,
            "spec": json.dumps(spec),
            "limits": json.dumps(LIMITS),
        },
    )


def add_ended(session: Session, *, first: int, last: int, total: int, tenant_count: int) -> None:
    """Add the ended jobs numbered `first` to `last` of `total`."""
    spec = {"model": {"name": "dlinear"}, "method": {"name": "pals"}}
    session.execute(
        ENDED,
        {
            "first": first,
            "last": last,
            "total": total,
            "tenants": tenants(tenant_count),
            "tenant_count": tenant_count,
            "spec": json.dumps(spec),
            "limits": json.dumps(LIMITS),
        },
    )


def add_kept(session: Session, *, jobs: int, total: int) -> None:
    """Give the last of the `total` ended jobs a checkpoint and an event each, and the failed ones of them a state."""
    for statement in KEPT:
        session.execute(statement, {"kept": jobs, "total": total})


@contextmanager
def without_indexes(database: Database) -> Iterator[None]:
    """Drop the jobs' indexes for as long as many rows are added, then make them again."""
    with database.write() as session:
        indexes = session.execute(INDEXES).all()
        for index in indexes:
            session.execute(text(f'DROP INDEX "{index.indexname}"'))
    yield
    with database.write() as session:
        session.execute(text("SET LOCAL statement_timeout = 0"))
        session.execute(text("SET LOCAL maintenance_work_mem = '1GB'"))
        for index in indexes:
            session.execute(text(index.indexdef))


def lease_some(session: Session, *, jobs: int, lease_seconds: float) -> None:
    """Let a worker that is gone hold some of the queued jobs; a negative time is a lease that has ended."""
    session.execute(LEASED, {"count": jobs, "lease_seconds": lease_seconds})
