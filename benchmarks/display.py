"""How runs are doing, on a terminal as a live table, elsewhere as plain lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from benchmarks.runs import RunFolder, RunSpec, read_json

# Seconds between two reports in plain lines
PLAIN_SECONDS = 60.0
HEADINGS = ("run", "step", "steps/s", "metric", "remaining")


class Display:
    """
    A context that shows runs.

    :param total: number of runs that this command executes
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.finished = 0
        self.failed = 0
        self._last_plain = time.monotonic()
        self._live: Any = None
        if sys.stdout.isatty():
            try:
                from rich.live import Live
            except ImportError:
                return  # plain lines will do
            self._live = Live(auto_refresh=False)

    def __enter__(self) -> Display:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()

    def message(self, text: str) -> None:
        """
        :param text: a line to keep
        """
        if self._live is not None:
            self._live.console.print(text, highlight=False, markup=False)
        else:
            print(text, flush=True)

    def update(self, active: Sequence[tuple[RunSpec, RunFolder]]) -> None:
        """
        :param active: the runs in execution
        """
        if self._live is None:
            if time.monotonic() - self._last_plain >= PLAIN_SECONDS:
                self._last_plain = time.monotonic()
                for spec, folder in active:
                    name, step, speed, metric, remaining = progress_cells(spec, folder)
                    print(f"{name}: step {step}, {speed} steps/s, {metric}, {remaining} left", flush=True)
            return
        from rich.table import Table

        waiting = self.total - self.finished - self.failed - len(active)
        failed = f", {self.failed} failed" if self.failed else ""
        title = f"{self.finished} of {self.total} runs finished{failed}, {waiting} waiting"
        table = Table(title=title, title_justify="left")
        for heading in HEADINGS:
            table.add_column(heading, justify="left" if heading in ("run", "metric") else "right")
        for spec, folder in active:
            table.add_row(*progress_cells(spec, folder))
        self._live.update(table, refresh=True)


def progress_cells(spec: RunSpec, folder: RunFolder) -> tuple[str, str, str, str, str]:
    """
    :param spec: a run
    :param folder: its files
    :return: a cell for each of :data:`HEADINGS`
    """
    try:
        progress = read_json(folder.progress)
    except (OSError, ValueError):
        return spec.name, "starting", "-", "-", "-"
    speed, metric = progress["fps"], progress["metric"]
    return (
        spec.name,
        f"{progress['step']:,} / {progress['budget']:,}",
        f"{speed:.0f}" if speed else "-",
        f"{metric} {progress['value']:.3g}" if metric else "-",
        duration((progress["budget"] - progress["step"]) / speed) if speed else "-",
    )


def duration(seconds: float) -> str:
    """
    :param seconds: a duration
    :return: hours and minutes, or minutes and seconds
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    return f"{hours} h {minutes_left:02d} min" if hours else f"{minutes} min {rest:02d} s"
