from __future__ import annotations

import struct
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from pals_core.checkpoint.container import MAX_HEADER_BYTES, read_header
from pals_core.checkpoint.tensor_file import open_tensors, write_tensors
from pals_core.errors import InvalidCheckpoint

TENSORS = {
    "bytes": torch.arange(5, dtype=torch.uint8),
    "nothing": torch.empty(0, 3),
    "scalar": torch.tensor(2.5),
    "double": torch.rand(2, 3, dtype=torch.float64),
    "complex": torch.rand(3, dtype=torch.complex64),
    "half": torch.rand(3).half(),
    "brain": torch.rand(3).bfloat16(),
    "flags": torch.tensor([True, False]),
    "whole": torch.tensor([[-1, 2**40]]),
    "small": torch.tensor([-128, 127], dtype=torch.int8),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    size = write_tensors(path, "key", 'a "description", ü', TENSORS)
    assert size == path.stat().st_size
    return path


def test_tensors_of_every_type_come_back(path: Path) -> None:
    with open_tensors(path, "key") as file:
        file.verify()
        assert file.text == 'a "description", ü'
        tensors = file.read_all()
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert (tensors[name].dtype, tensors[name].shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(tensors[name], tensor)


def test_the_library_of_the_container_reads_what_is_written(path: Path) -> None:
    with safe_open(path, "pt") as file:
        assert file.metadata()["key"] == 'a "description", ü'
        assert set(file.keys()) == set(TENSORS)
        assert all(torch.equal(file.get_tensor(name), tensor) for name, tensor in TENSORS.items())


def test_equal_tensors_are_equal_bytes_in_whatever_order(path: Path, tmp_path: Path) -> None:
    write_tensors(tmp_path / "other", "key", 'a "description", ü', dict(reversed(TENSORS.items())))
    assert (tmp_path / "other").read_bytes() == path.read_bytes()


def test_a_changed_bit_in_any_byte_is_found(path: Path) -> None:
    content = path.read_bytes()
    for position in range(len(content)):
        path.write_bytes(content[:position] + bytes([content[position] ^ 4]) + content[position + 1 :])
        with pytest.raises(InvalidCheckpoint), open_tensors(path, "key") as file:
            file.verify()


def test_a_byte_that_is_neither_true_nor_false_is_true(path: Path) -> None:
    with open_tensors(path, "key") as file:
        place = file.entries["flags"].start
    content = bytearray(path.read_bytes())
    content[place] = 77
    path.write_bytes(content)
    with open_tensors(path, "key") as file:
        assert file.read("flags").tolist() == [True, False]
        assert file.read("flags").sum() == 1


def test_a_file_that_is_cut_while_it_is_read_is_refused(path: Path) -> None:
    with open_tensors(path, "key") as file:
        with path.open("r+b") as other:
            other.truncate(file.entries["bytes"].start + 2)
        with pytest.raises(InvalidCheckpoint, match="ends early"):
            file.read("bytes")


@pytest.mark.parametrize("filling", [b"[],", b'"a",', b"0,", b"{}, "])
def test_a_header_of_rubbish_is_refused_in_a_moment(tmp_path: Path, filling: bytes) -> None:
    content = b"[" + filling * ((MAX_HEADER_BYTES - 16) // len(filling)) + b"0]"
    (tmp_path / "bomb").write_bytes(struct.pack("<Q", len(content)) + content)
    with pytest.raises(InvalidCheckpoint):
        read_header(tmp_path / "bomb")


def test_a_header_that_names_a_million_tensors_and_one_twice_is_refused_in_a_moment(tmp_path: Path) -> None:
    names = b",".join(b'"%x":0' % number for number in range(900_000))
    content = b"{" + names + b',"0":0}'
    (tmp_path / "bomb").write_bytes(struct.pack("<Q", len(content)) + content)
    with pytest.raises(InvalidCheckpoint, match="names '0' twice"):
        read_header(tmp_path / "bomb")


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        write_tensors(tmp_path / "nowhere" / "x.safetensors", "pals", "", {"a": torch.zeros(1)})
    assert caught.value.filename == str(tmp_path / "nowhere")
