"""What a path names: the row, or a problem that says there is none."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import Path, Query
from sqlalchemy.orm import Session

from api.problems import ApiProblem, ProblemCode, ProblemItem
from jobstore.artifacts import get_artifact
from jobstore.checkpoints import best_checkpoint_of, get_checkpoint
from jobstore.datasets import get_dataset, lock_dataset
from jobstore.jobs import get_job
from jobstore.jobs import lock as lock_job
from jobstore.lifecycle import DatasetStatus
from jobstore.tables import DEFAULT_TENANT, Artifact, Checkpoint, Dataset, Job
from pals_core.data.profile import TableProfile

ID_PATTERN = r"^[a-z]{2,4}_[0-9a-z]{1,35}$"
_ID = re.compile(ID_PATTERN)

JobId = Annotated[str, Path(description="A job's id.", examples=["job_0199c2f4a1b20123456789abcdef"])]
DatasetId = Annotated[str, Path(description="A dataset's id.", examples=["ds_0199c2f4a1b20123456789abcdef"])]
CheckpointId = Annotated[str, Path(description="A checkpoint's id.", examples=["ckpt_0199c2f4a1b20123456789abcdef"])]
Limit = Annotated[int, Query(ge=1, le=100, description="Most rows of the page.")]
Cursor = Annotated[str | None, Query(pattern=ID_PATTERN, description="The `next` of the page before.")]


def _missing(kind: str, row_id: str) -> ApiProblem:
    shown = row_id if len(row_id) <= 60 else f"{row_id[:60]}…"
    return ApiProblem(ProblemCode.NOT_FOUND, f"There is no {kind} {shown!r}.")


def existing_dataset(session: Session, dataset_id: str) -> Dataset:
    """The dataset. Raises ApiProblem."""
    dataset = get_dataset(session, DEFAULT_TENANT, dataset_id) if _ID.fullmatch(dataset_id) else None
    if dataset is None:
        raise _missing("dataset", dataset_id)
    return dataset


def locked_dataset(session: Session, dataset_id: str) -> Dataset:
    """The dataset under its row lock. Raises ApiProblem."""
    dataset = lock_dataset(session, DEFAULT_TENANT, dataset_id) if _ID.fullmatch(dataset_id) else None
    if dataset is None:
        raise _missing("dataset", dataset_id)
    return dataset


def existing_job(session: Session, job_id: str) -> Job:
    """The job. Raises ApiProblem."""
    job = get_job(session, DEFAULT_TENANT, job_id) if _ID.fullmatch(job_id) else None
    if job is None:
        raise _missing("job", job_id)
    return job


def locked_job(session: Session, job_id: str) -> Job:
    """The job under its row lock. Raises ApiProblem."""
    job = lock_job(session, job_id) if _ID.fullmatch(job_id) else None
    if job is None or job.tenant_id != DEFAULT_TENANT:
        raise _missing("job", job_id)
    return job


def existing_checkpoint(session: Session, checkpoint_id: str) -> tuple[Checkpoint, Artifact]:
    """The checkpoint and what is stored of it. Raises ApiProblem."""
    checkpoint = get_checkpoint(session, DEFAULT_TENANT, checkpoint_id) if _ID.fullmatch(checkpoint_id) else None
    if checkpoint is None:
        raise _missing("checkpoint", checkpoint_id)
    return checkpoint, get_artifact(session, checkpoint.artifact_id)


def existing_best_checkpoint(session: Session, job_id: str) -> Checkpoint:
    """The best checkpoint of a job. Raises ApiProblem without the job, and while the job has none."""
    job = existing_job(session, job_id)
    checkpoint = best_checkpoint_of(session, job.id)
    if checkpoint is None:
        detail = f"Job {job.id} has no best checkpoint: it comes with the first epoch, and may have been deleted."
        raise ApiProblem(ProblemCode.NOT_FOUND, detail)
    return checkpoint


def existing_evaluation(session: Session, job_id: str) -> Artifact:
    """What is stored of a job's evaluation. Raises ApiProblem without the job, and while there is none."""
    job = existing_job(session, job_id)
    checkpoint = best_checkpoint_of(session, job.id)
    if checkpoint is None or checkpoint.evaluation_id is None:
        detail = f"Job {job.id} has no evaluation: it comes with the end of the training, for the best checkpoint."
        raise ApiProblem(ProblemCode.NOT_FOUND, detail)
    return get_artifact(session, checkpoint.evaluation_id)


def locked_checkpoint(session: Session, checkpoint_id: str) -> Checkpoint:
    """The checkpoint, read again under the lock of its job, which every change of it holds. Raises ApiProblem."""
    checkpoint, _ = existing_checkpoint(session, checkpoint_id)
    lock_job(session, checkpoint.job_id)
    session.expunge(checkpoint)
    again, _ = existing_checkpoint(session, checkpoint_id)
    return again


def ready_profile(dataset: Dataset) -> TableProfile:
    """The audited shape of a dataset that can be used. Raises ApiProblem while it cannot."""
    if dataset.status == DatasetStatus.AUDITING:
        detail = f"Dataset {dataset.id} is still being audited; try again when its status is ready."
        raise ApiProblem(ProblemCode.DATASET_AUDITING, detail, headers={"Retry-After": "2"})
    if dataset.profile is None:
        error = dataset.error or {"message": "its audit failed"}
        items = [
            ProblemItem(pointer="/dataset_id", message=item["message"], row=item.get("row"), column=item.get("column"))
            for item in error.get("errors", ())
        ]
        detail = f"Dataset {dataset.id} is invalid: {error['message']}"
        raise ApiProblem(
            ProblemCode.INVALID_DATASET, detail, items or [ProblemItem(pointer="/dataset_id", message=detail)]
        )
    return TableProfile.model_validate(dataset.profile)
