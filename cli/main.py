"""The `pals` command. Each command imports what it needs when it runs, so that help is instant."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.checkpoint import app as checkpoint_commands

app = typer.Typer(
    name="pals",
    help="Train sparse forecasters: a service, its worker, and a demonstration.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(checkpoint_commands)


@app.command()
def serve(
    exit_with_parent: Annotated[
        bool, typer.Option("--exit-with-parent", help="Stop when standard input ends.", hidden=True)
    ] = False,
) -> None:
    """Run the embedded service on this host: the API and one worker."""
    from cli.serve import serve as run

    run(exit_with_parent=exit_with_parent)


@app.command()
def api() -> None:
    """Run the HTTP API alone, against the configured database and broker."""
    from api.server import run
    from cli.refusals import read_settings

    run(read_settings())


@app.command()
def worker(
    exit_with_parent: Annotated[
        bool, typer.Option("--exit-with-parent", help="Stop when standard input ends.", hidden=True)
    ] = False,
) -> None:
    """Run a worker that trains queued jobs, on the GPU where there is one."""
    from cli.refusals import read_settings
    from jobstore.logs import configure
    from worker.run import run

    settings = read_settings()
    configure(settings)
    run(settings, exit_with_parent=exit_with_parent)


@app.command()
def workers() -> None:
    """List the living workers, their slots and what each is training."""
    from rich.console import Console

    from cli.refusals import read_settings, told_in_a_line
    from cli.workers import show

    with told_in_a_line():
        show(read_settings(), Console())


@app.command()
def migrate() -> None:
    """Bring the database's schema to this version."""
    from cli.refusals import read_settings, told_in_a_line
    from jobstore.database import open_database
    from jobstore.schema import upgrade

    with told_in_a_line():
        database = open_database(read_settings())
        database.ping()
        upgrade(database)
    typer.echo("the database is up to date")


@app.command()
def demo(
    output_dir: Annotated[Path, typer.Option(help="Folder for the pictures and the checkpoint.")] = Path("demo"),
) -> None:
    """Train a sparse forecaster of atmospheric CO2 over HTTP and draw its forecast."""
    from cli.demo import run

    run(output_dir)


def main() -> None:
    """Entry point of the `pals` script."""
    app()


if __name__ == "__main__":
    main()
