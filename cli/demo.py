"""The demonstration: what a user does, over HTTP, from the upload to a picture of the forecast."""

from __future__ import annotations

import json
import logging
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

from cli.example_series import COLUMN, SERIES_PATH, Series, forecast_series, measured
from cli.throwaway_service import ServiceFailed, throwaway_service, wait_until_ready
from cli.training_view import TrainingView
from pals_client import Checkpoint, Client, ClientError, Dataset, Evaluation, Event, Job, MetricSeries

HORIZON = 52
INPUT_LEN = 104
# Sizes and rates were chosen by the validation loss; the test part only measures.
SPEC: dict[str, Any] = {
    "data": {"horizon": HORIZON, "input_len": INPUT_LEN, "missing": "interpolate"},
    "model": {"name": "nstransformer", "d_model": 64, "d_ff": 128, "heads": 4, "encoder_layers": 1},
    "method": {"name": "pals", "prune_rate_factor": 1.2, "update_interval": 10},
    "training": {"epochs": 6, "batch_size": 16, "learning_rate": 2e-3, "device": "cpu"},
}
INTERRUPTED = 130


class DemoFailed(Exception):
    """The training did not succeed; says why."""


@dataclass(frozen=True)
class Demonstrated:
    """Everything that came out of one run."""

    job: Job
    checkpoint: Checkpoint
    file: Path
    metrics: dict[str, MetricSeries]
    updates: list[Event]
    forecast: Series
    hindcast: Series
    evaluation: Evaluation


def run(output_dir: Path) -> None:
    """Train on the example series and write pictures and checkpoint into `output_dir`.

    Exits with 1 when something failed and with 130 after Ctrl-C or SIGTERM; nothing keeps running and
    no temporary file stays in either case.
    """
    # Lines are broken by a terminal alone; a file or a pipe keeps them whole.
    console = Console(highlight=False, soft_wrap=not sys.stdout.isatty())
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        _demonstrate(console, output_dir)
    except KeyboardInterrupt:
        console.print("Interrupted; the service has stopped and its temporary folder is gone.")
        raise typer.Exit(INTERRUPTED) from None
    except (ClientError, ServiceFailed, DemoFailed, OSError) as error:
        console.print(f"The demonstration failed: {error}", style="red", markup=False)
        raise typer.Exit(1) from None


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _demonstrate(console: Console, output_dir: Path) -> None:
    began = time.monotonic()
    history = measured()
    output_dir.mkdir(parents=True, exist_ok=True)
    console.print("[bold]A sparse forecaster of the CO2 over Mauna Loa[/bold]\n")
    console.print("Starting the service: API, SQLite and one worker in a temporary folder")
    with throwaway_service() as address, Client(address) as client:
        wait_until_ready(client)
        console.print(f"  {address} is ready")
        done = _train(console, client, history, output_dir)
    _draw(done, history, output_dir)
    _summarise(console, done, output_dir, seconds=time.monotonic() - began)


def _train(console: Console, client: Client, history: Series, output_dir: Path) -> Demonstrated:
    """Upload, train, download, forecast."""
    console.print(f"Uploading {SERIES_PATH.name}")
    dataset = client.upload_dataset(SERIES_PATH)
    console.print(f"  {_described(dataset)}")

    method, model = SPEC["method"], SPEC["model"]
    console.print(
        f"Training {model['name']} with PALS (γ {method['prune_rate_factor']}, an update every "
        f"{method['update_interval']} steps) to forecast {HORIZON} weeks"
    )
    job = client.create_job(dataset["id"], SPEC, name="Mauna Loa CO2, 52 weeks")
    updates: list[Event] = []
    with TrainingView(console) as view:

        def hear(event: Event) -> None:
            view.hear(event)
            if event["type"] == "mask_update":
                updates.append(event)

        job = client.wait(job["id"], on_event=hear)
    if job["status"] != "succeeded":
        reason = job["error"]["message"] if job["error"] else job["status_reason"]
        raise DemoFailed(f"the training {job['status']}: {reason}")

    best = next(checkpoint for checkpoint in client.checkpoints(job["id"]) if checkpoint["is_best"])
    file = output_dir / "mauna_loa_co2.pals.safetensors"
    console.print("Downloading the sparse checkpoint")
    checkpoint = client.download(best["id"], file)
    console.print(f"  {checkpoint['bytes']:,} bytes, sha256 {checkpoint['sha256'][:16]}… verified")

    console.print("Asking it for forecasts: the year after the record, and its last year from the two before")
    recent = slice(-INPUT_LEN - HORIZON, -HORIZON)
    past = client.forecast(
        best["id"],
        timestamps=[moment.isoformat() for moment in history.times[recent]],
        values={COLUMN: history.values[recent]},
    )
    return Demonstrated(
        job=job,
        checkpoint=checkpoint,
        file=file,
        metrics=client.metrics(job["id"], max_points=5000),
        updates=updates,
        forecast=forecast_series(client.forecast(best["id"])),
        hindcast=forecast_series(past),
        evaluation=client.evaluation(job["id"]),
    )


def _described(dataset: Dataset) -> str:
    profile = dataset["profile"] or {}
    findings = "; ".join(finding["message"] for finding in profile.get("findings", ()))
    return f"{profile['rows']:,} rows, frequency {profile['frequency']}" + (f" ({findings})" if findings else "")


def _draw(done: Demonstrated, history: Series, output_dir: Path) -> None:
    # Its first import on a machine announces, as a warning, that it looks for fonts.
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    from cli.evaluation_picture import draw_evaluation
    from cli.pictures import draw_forecast, draw_training

    draw_evaluation(output_dir / "evaluation.png", done.evaluation)
    (output_dir / "evaluation.json").write_text(json.dumps(done.evaluation), encoding="utf-8")
    result = done.job["result"] or {}
    draw_forecast(
        output_dir / "forecast.png",
        history=history,
        hindcast=done.hindcast,
        forecast=done.forecast,
        sparsity=result["sparsity"],
    )
    draw_training(output_dir / "training.png", metrics=done.metrics, updates=done.updates, best_step=result["step"])


def _summarise(console: Console, done: Demonstrated, output_dir: Path, *, seconds: float) -> None:
    result = done.job["result"] or {}
    scaled, original = result["metrics"], result["metrics"]["original"]
    console.print("\n[bold]Done[/bold]")
    for name, value in [
        ("sparsity", f"{result['sparsity']:.1%} of {result['maskable_parameters']:,} maskable weights are off"),
        ("test MSE, MAE", f"{scaled['mse']:.4f}, {scaled['mae']:.4f} (scaled)"),
        ("", f"{original['mse']:.3f} ppm², {original['mae']:.3f} ppm"),
        ("one forecast", f"{result['flops_dense']:,} FLOPs dense, {result['flops_sparse']:,} sparse"),
        ("size", f"{result['dense_bytes']:,} bytes dense, {result['checkpoint_bytes']:,} sparse"),
        ("checkpoint", str(done.file)),
        ("beside naive", _compared(done.evaluation)),
        ("intervals", _covered(done.evaluation)),
        ("pictures", ", ".join(str(output_dir / f"{name}.png") for name in ("forecast", "training", "evaluation"))),
        ("took", f"{seconds:.0f} s"),
    ]:
        console.print(f"  [bold]{name:<16}[/bold]{escape(value)}")


def _compared(evaluation: Evaluation) -> str:
    """The errors as multiples of those of the forecast that costs nothing."""
    ours, naive = evaluation["forecaster"]["overall"], evaluation["naive"]["overall"]
    mae = naive["original"]["mae"]
    ratio = ours["original"]["mae"] / mae
    return f"{ratio:.2f} times the MAE of the values {evaluation['season']} weeks before ({mae:.3f} ppm)"


def _covered(evaluation: Evaluation) -> str:
    """What share of the test part lies inside of the prediction intervals."""
    shares = [
        f"{interval['coverage']:.0f} % inside of those of {interval['level']:g} %"
        for interval in evaluation["intervals"]
    ]
    return ", ".join(shares) or "too few validation windows"
