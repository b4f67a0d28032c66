"""Executes the runs of a plan that are missing, several at once, and publishes each one as it finishes."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.display import Display
from benchmarks.engines import Engine, Handle
from benchmarks.grid import Plan, has_begun, reconcile
from benchmarks.results import Results, unpublished
from benchmarks.runs import RunFolder, RunSpec, is_locked, make_work_folder
from benchmarks.worker import BUSY, FINISHED, STOPPED, WorkerOptions

POLL_SECONDS = 0.5
ALL_FINISHED, SOME_FAILED, INTERRUPTED = 0, 1, 130


class Executor:
    """
    Several executors, of several commands, can share a plan: a run that another one executes is left to it.

    :param plan: the plan
    :param engine: where to execute
    :param options: how to execute
    :param jobs: how many runs at once; None: as the engine sees fit
    """

    def __init__(self, plan: Plan, engine: Engine, options: WorkerOptions, jobs: int | None = None) -> None:
        self.plan, self.engine, self.options = plan, engine, options
        self.jobs = engine.jobs() if jobs is None else jobs
        self.results = Results(plan.results, plan.experiment.has_maps)
        self._lock = plan.work / "results.lock"
        self._waiting: list[tuple[RunSpec, RunFolder]] = []
        self._active: dict[str, tuple[RunSpec, RunFolder, Handle]] = {}
        self._failures: list[str] = []
        #: signals caught: the first asks the runs to stop, the second ends them at once
        self._signals = 0

    def execute(self, on_change: str = "error", again: bool = False) -> int:
        """
        :param on_change: see :func:`~benchmarks.grid.reconcile`
        :param again: see :func:`~benchmarks.grid.reconcile`
        :return: :data:`ALL_FINISHED`, :data:`SOME_FAILED` or :data:`INTERRUPTED`
        :raises ValueError: if runs were made with other settings, or are being executed and to be discarded
        """
        make_work_folder(self.plan.work)
        self._waiting = reconcile(self.plan, on_change, again)
        # Of commands and workers that were killed before they could do it themselves
        self.results.publish(unpublished(self.results, self.plan.folders()), self._lock)
        for _, folder in self.plan.folders():
            if folder.is_finished():
                shutil.rmtree(folder.checkpoints, ignore_errors=True)
        total = len(self._waiting)
        name, n_runs = self.plan.experiment.name, len(self.plan.specs)
        print(f"{name}: {total} of {n_runs} runs to do, results in {self.plan.results}", flush=True)
        if not total:
            return ALL_FINISHED
        with self._caught_signals(), Display(total) as display:
            asked = False
            while self._active or (self._waiting and not self._signals):
                if not self._signals:
                    self._start_runs(display)
                elif not asked:
                    asked = True
                    display.message("Stopping: the runs write checkpoints. Press Ctrl-C again to end them at once.")
                    for _, folder, _ in self._active.values():
                        folder.stop.touch()
                if self._signals > 1:
                    for _, _, handle in self._active.values():
                        handle.kill()
                self._collect_runs(display)
                display.update([(spec, folder) for spec, folder, _ in self._active.values()])
                time.sleep(POLL_SECONDS)
        for failure in self._failures:
            print(f"error: {failure}")
        if self._signals:
            return INTERRUPTED
        return SOME_FAILED if self._failures else ALL_FINISHED

    def _start_runs(self, display: Display) -> None:
        for spec, folder in list(self._waiting):
            if len(self._active) >= self.jobs:
                return
            if is_locked(folder.lock):
                continue  # by another command, or what is left of a killed one, which is about to end
            self._waiting.remove((spec, folder))
            if folder.is_finished():
                self._publish(spec, folder, display)
                continue
            if not has_begun(folder):
                # Only now: another command may have planned it too, with other settings
                folder.write_spec(spec, self.plan.command)
            folder.stop.unlink(missing_ok=True)
            self._active[spec.name] = (spec, folder, self.engine.start(folder, self.options))

    def _collect_runs(self, display: Display) -> None:
        for name, (spec, folder, handle) in list(self._active.items()):
            code = handle.poll()
            if code is None:
                continue
            del self._active[name]
            if code == FINISHED:
                self._publish(spec, folder, display)
            elif code == BUSY:
                self._waiting.append((spec, folder))
            elif not self._signals or (code != STOPPED and self._signals < 2):
                stopped, failed = "was asked to stop; the same command continues it", f"failed with exit code {code}"
                self._failures.append(f"{name}: {stopped if code == STOPPED else failed}, see {folder.log}")
                display.failed += 1
                display.message(self._failures[-1])

    def _publish(self, spec: RunSpec, folder: RunFolder, display: Display) -> None:
        self.results.publish([folder], self._lock)
        display.finished += 1
        display.message(f"{spec.name}: finished ({display.finished} of {display.total})")

    @contextmanager
    def _caught_signals(self) -> Iterator[None]:
        def count(*_: Any) -> None:
            self._signals += 1

        former = {number: signal.signal(number, count) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)
