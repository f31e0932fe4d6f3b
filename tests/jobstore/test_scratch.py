"""A worker's folder is its own while it lives, and goes with it or with the start of the next one."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from jobstore.scratch import own_scratch

HOLDER = "import sys; from pathlib import Path; from jobstore.scratch import own_scratch\n"
HOLDER += "with own_scratch(Path(sys.argv[1]), 'wrk_other') as folder:\n"
HOLDER += "    (folder / 'epoch').write_bytes(b'x'); print('held', flush=True); sys.stdin.read()\n"


def folders(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if path.is_dir())


def holder(root: Path) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    return process


def close(process: subprocess.Popen[bytes]) -> None:
    process.communicate(timeout=30)


def test_a_folder_is_there_while_it_is_held(tmp_path: Path) -> None:
    root = tmp_path / "scratch"
    with own_scratch(root, "wrk_one") as folder:
        (folder / "job_1-token").mkdir()
        with own_scratch(root, "wrk_two"):
            assert folders(root) == ["wrk_one", "wrk_two"]
        assert folders(root) == ["wrk_one"]
    assert folders(root) == []


def test_what_a_killed_worker_left_goes_when_the_next_one_starts(tmp_path: Path) -> None:
    killed = holder(tmp_path)
    killed.send_signal(signal.SIGKILL)
    close(killed)
    assert folders(tmp_path) == ["wrk_other"]
    with own_scratch(tmp_path, "wrk_one"):
        assert folders(tmp_path) == ["wrk_one"]


def test_a_living_workers_folder_is_left_alone(tmp_path: Path) -> None:
    living = holder(tmp_path)
    with own_scratch(tmp_path, "wrk_one"):
        assert folders(tmp_path) == ["wrk_one", "wrk_other"]
        assert (tmp_path / "wrk_other" / "epoch").read_bytes() == b"x"
    close(living)
    assert folders(tmp_path) == []
