"""`pals checkpoint`: what a checkpoint file holds, the same network in other files, and what parts two of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pals_core.checkpoint.header import StoredPrecision
from pals_core.errors import PalsError

if TYPE_CHECKING:
    from pals_core.checkpoint.file import Checkpoint

app = typer.Typer(name="checkpoint", help="Inspect, convert and compare checkpoint files.", no_args_is_help=True)

File = Annotated[Path, typer.Argument(help="A checkpoint, *.pals.safetensors.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]
_SUFFIX = ".pals.safetensors"


class Format(StrEnum):
    PACKED = "packed"
    DENSE = "dense"


@app.command()
def inspect(file: File, as_json: AsJson = False) -> None:
    """Show what a checkpoint says of itself: spec, layers, sparsity, FLOPs, bytes, metrics. Its digest is verified."""
    from cli.checkpoint_tables import show_inspection
    from pals_core.checkpoint.container import parse_header, read_contents

    with _one_line_errors(), file.open("rb") as opened:
        contents = read_contents(opened)
        header = parse_header(contents.text)
        contents.verify(opened)
    size = file.stat().st_size
    if not as_json:
        show_inspection(file.name, size, header)
        return
    facts = header.model_dump(mode="json") | {
        "file_bytes": size,
        "sha256": contents.digest,
        "may_be_default": header.may_be_default,
        "total": header.totals,
    }
    typer.echo(json.dumps(facts, indent=1))


@app.command()
def convert(
    file: File,
    output: Annotated[Path | None, typer.Argument(help="The new file; next to FILE unless given.")] = None,
    to: Annotated[Format, typer.Option("--format", help="A checkpoint, or the model's plain tensors.")] = Format.PACKED,
    precision: Annotated[StoredPrecision, typer.Option(help="Of the active values.")] = StoredPrecision.FP32,
    series: Annotated[
        Path | None, typer.Option(help="The table it was trained on: measures what rounding does to the test MSE.")
    ] = None,
    in_place: Annotated[
        bool, typer.Option("--in-place", help="Replace FILE, which is refused unless the MSE rises by at most 1 %.")
    ] = False,
) -> None:
    """Write the same network in another precision, or as plain dense tensors that load_state_dict takes."""
    from pals_core.checkpoint.file import read_checkpoint, write_checkpoint
    from pals_core.data.table import read_table
    from pals_core.training.conversion import in_precision, write_dense

    with _one_line_errors():
        if to is Format.DENSE and (precision is not StoredPrecision.FP32 or in_place):
            raise _Refused("dense tensors are written in fp32 and into a file of their own")
        if in_place and output is not None:
            raise _Refused("--in-place replaces FILE; leave OUTPUT out")
        target = file if in_place else output or _beside(file, "dense" if to is Format.DENSE else precision)
        if not in_place and target.exists():
            raise _Refused(f"{target} exists; remove it, or name another file")
        checkpoint = read_checkpoint(file)
        if to is Format.DENSE:
            size = write_dense(target, checkpoint)
            typer.echo(f"{target}: {size:,} bytes")
            return
        table = None if series is None else read_table(series, checkpoint.header.spec.data.columns)
        variant = in_precision(checkpoint, precision, table)
        change = variant.header.mse_change
        if in_place and not variant.header.may_be_default:
            said = "is not known; give --series" if change is None else f"is {change:+.2%}, more than 1 %"
            raise _Refused(f"{precision} does not take the place of fp32: its change of the test MSE {said}")
        before = file.stat().st_size
        size = write_checkpoint(target, variant)
    measured = "" if change is None else f", test MSE {change:+.3%}"
    typer.echo(f"{target}: {size:,} bytes ({size / before:.0%} of {before:,}){measured}")


@app.command()
def diff(first: File, second: File, as_json: AsJson = False) -> None:
    """Compare two checkpoints: fields of the spec, masks, weights, metrics."""
    from cli.checkpoint_tables import show_differences
    from pals_core.checkpoint.comparison import compare
    from pals_core.checkpoint.file import read_checkpoint

    def read(path: Path) -> Checkpoint:
        with _one_line_errors(path):
            return read_checkpoint(path)

    differences = compare(read(first), read(second))
    if as_json:
        typer.echo(differences.model_dump_json(indent=1))
    else:
        show_differences(first.name, second.name, differences)


class _Refused(Exception):
    """What was asked for is not done; says why."""


@contextmanager
def _one_line_errors(path: Path | None = None) -> Iterator[None]:
    """Show what goes wrong on purpose as one line, and exit with 1."""
    try:
        yield
    except (PalsError, OSError, _Refused) as error:
        from cli.checkpoint_tables import printable

        where = "" if path is None else f"{path}: "
        typer.echo(printable(f"{where}{error}"), err=True)
        raise typer.Exit(1) from None


def _beside(file: Path, kind: str) -> Path:
    stem = file.name.removesuffix(_SUFFIX)
    return file.with_name(f"{stem}.{kind}{'.safetensors' if kind == 'dense' else _SUFFIX}")
