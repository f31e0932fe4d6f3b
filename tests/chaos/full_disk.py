"""A full disk: a file system of its own for the artifacts where we may mount one, else a limit on file sizes."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from tests.chaos.cluster import ARTIFACTS, Cluster, production

SIZE = "64m"
BALLAST = ".ballast"
CHUNK = bytes(1 << 20)
LARGEST_FILE = 512  # bytes: nothing that is worth keeping fits


@contextmanager
def small_file_system(folder: Path) -> Iterator[bool]:
    """Mount a small file system at `folder`; False, and nothing is mounted, where that is not permitted."""
    folder.mkdir(parents=True, exist_ok=True)
    mounted = False
    if sys.platform == "linux" and os.geteuid() == 0 and shutil.which("mount") is not None:
        command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)]
        mounted = subprocess.run(command, check=False, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def production_on_small_disk(folder: Path, *, workers: int) -> Iterator[Cluster]:
    """The production stack, its artifacts on a file system of their own where we may mount one."""
    with small_file_system(folder / ARTIFACTS), production(folder, workers=workers) as cluster:
        yield cluster


def can_be_filled(cluster: Cluster) -> bool:
    """Whether this system has a way to make the disk seem full."""
    return cluster.artifacts.root.is_mount() or hasattr(resource, "prlimit")


@contextmanager
def full_disk(cluster: Cluster) -> Iterator[bool]:
    """Let no byte more fit into the artifact store until the block ends; False when nobody is there to notice."""
    if cluster.artifacts.root.is_mount():
        ballast = cluster.artifacts.root / BALLAST
        try:
            fill(ballast)
            yield True
        finally:
            ballast.unlink(missing_ok=True)
    else:
        with files_limited(cluster.workers()) as limited:
            yield limited


def fill(path: Path) -> None:
    """Write until the disk is full."""
    with path.open("wb", buffering=0) as file:
        for piece in (CHUNK, CHUNK[:4096]):
            with _until_full():
                while True:
                    file.write(piece)


@contextmanager
def _until_full() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise


@contextmanager
def files_limited(processes: list[psutil.Process]) -> Iterator[bool]:
    """Let these processes write no file beyond a few bytes: a write then fails as on a full disk, with EFBIG."""
    before: dict[psutil.Process, tuple[int, int]] = {}
    try:
        for process in processes:
            with suppress(ProcessLookupError, psutil.Error):
                limit = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
                resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (LARGEST_FILE, limit[1]))
                before[process] = limit
        yield bool(before)
    finally:
        for process, limit in before.items():
            # Those that it started meanwhile have the limit as well.
            with suppress(ProcessLookupError, psutil.Error):
                for each in (process, *process.children(recursive=True)):
                    resource.prlimit(each.pid, resource.RLIMIT_FSIZE, limit)
