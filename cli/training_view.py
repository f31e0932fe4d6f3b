"""A training as it happens, on a terminal as a live bar, elsewhere as plain lines."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from pals_client import Event


class TrainingView:
    """Hears the events of one job and shows them; a context that ends the live bar."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        if console.is_terminal and not console.is_dumb_terminal:
            self._bar = Progress(
                TextColumn("  epoch {task.fields[epoch]}"),
                BarColumn(bar_width=None),
                TextColumn("step {task.completed:.0f}/{task.total:.0f}"),
                TextColumn("loss {task.fields[loss]}"),
                TextColumn("[bold]sparsity {task.fields[sparsity]}"),
                TextColumn("{task.fields[move]:<6}"),
                TextColumn("{task.fields[left]}"),
                console=console,
                expand=True,
                transient=True,
            )

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def hear(self, event: Event) -> None:
        """Show one event."""
        if event["type"] == "progress" and self._bar is not None:
            self._advance(self._bar, event["data"])
        elif event["type"] == "epoch":
            self._say_epoch(event["data"])
        elif event["type"] == "message":
            level = "" if event["level"] == "info" else f"{event['level']}: "
            self._console.print(f"  {level}{event['message']}", highlight=False, markup=False)

    def _advance(self, bar: Progress, data: dict[str, Any]) -> None:
        fields: dict[str, Any] = {
            "epoch": f"{data['epoch']}/{data['epochs']}",
            "loss": f"{data['train_loss']:.4f}",
            "sparsity": f"{data['sparsity']:.1%}",
            "move": data["move"] or "",
            "left": _duration(data["estimated_remaining_seconds"]),
        }
        if self._task is None:
            self._task = bar.add_task("training", total=data["total_steps"], **fields)
        bar.update(self._task, completed=data["step"], **fields)

    def _say_epoch(self, data: dict[str, Any]) -> None:
        frozen = ", masks frozen" if data["masks_frozen"] else ""
        self._console.print(
            f"  epoch {data['epoch']}: train loss {data['train_loss']:.4f}, "
            f"validation loss {data['validation_loss']:.4f}, sparsity {data['sparsity']:.1%}{frozen}",
            highlight=False,
            markup=False,
        )


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d} left"
