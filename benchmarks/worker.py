"""
Executes one run: ``python -m benchmarks.worker <folder>``. Started by ``benchmarks.run``, one process a run.

Goes on from the run's checkpoint where there is one. Ends with exit code 0 when the run is finished, 75 when it was asked to
stop and has written a checkpoint, and 76 when another process executes the run.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch as th

from benchmarks.checkpoint import RunState, resume
from benchmarks.densities import save_densities
from benchmarks.measures import count_parameters, make_measure
from benchmarks.provenance import environment, origin, peak_memory
from benchmarks.recorder import Recorder, Stopped, StopRequest
from benchmarks.runs import Row, RunFolder, RunSpec, locked, write_json
from benchmarks.schema import RANDOM_BASELINES
from benchmarks.settings import Workbench, import_packages
from benchmarks.visits import POSITIONS, save_visits
from sb3_rpg.checkpoints import latest_checkpoint
from sb3_rpg.precision import resolve_precision

FINISHED, STOPPED, BUSY = 0, 75, 76


@dataclass(frozen=True)
class WorkerOptions:
    """
    How a run is executed; nothing that its numbers should depend on.

    :param checkpoint_every: seconds between two checkpoints
    :param device: torch's device
    :param gym_packages: packages that register environments
    """

    checkpoint_every: float = 600.0
    device: str = "auto"
    gym_packages: tuple[str, ...] = field(default_factory=tuple)

    def arguments(self) -> list[str]:
        """
        :return: the options as a command line
        """
        arguments = ["--checkpoint-every", str(self.checkpoint_every), "--device", self.device]
        return [*arguments, "--gym-packages", *self.gym_packages] if self.gym_packages else arguments


def execute(path: Path, options: WorkerOptions) -> int:
    """
    :param path: the run's folder, which describes it
    :param options: how to execute it
    :return: exit code
    """
    folder = RunFolder(path)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(folder.lock, wait=False))
        except BlockingIOError:
            return BUSY
        if folder.is_finished():
            return FINISHED
        th.set_num_threads(1)
        import_packages(options.gym_packages)
        spec, command = folder.read_spec()
        try:
            outcome = _compute_baseline(folder, spec) if spec.base in RANDOM_BASELINES else _train(folder, spec, options)
        except Stopped:
            print("stopped; the checkpoint is written", flush=True)
            return STOPPED
        write_json(folder.finished, {"fingerprint": spec.fingerprint(), "command": command, **outcome})
        shutil.rmtree(folder.checkpoints, ignore_errors=True)
        return FINISHED


def _train(folder: RunFolder, spec: RunSpec, options: WorkerOptions) -> dict[str, Any]:
    from stable_baselines3.common.logger import configure

    with _stop_request(folder) as stop:
        bench = Workbench(spec.base, spec.task, spec.settings, spec.budget, spec.seed, options.device)
        env = bench.make_env()
        checkpoint = latest_checkpoint(folder.checkpoints)
        if checkpoint is None:
            model, state = bench.make_model(env), RunState()
        else:
            model, state = resume(checkpoint, bench.model_class(), env, spec.seed, options.device)
            print(f"resumed at step {model.num_timesteps}", flush=True)
        state.origins.append(origin())
        start = model.num_timesteps
        model.set_logger(configure(str(folder.diagnostics / str(start)), ["csv"]))
        measures = [make_measure(metric, spec.seed, bench.make_eval_env) for metric in spec.metrics]
        recorder = Recorder(folder, state, measures, spec.budget, stop, options.checkpoint_every)
        # A checkpoint can be written right at the end, with nothing left to learn
        if start < spec.budget:
            # The recorder logs at its own pace. SB3 takes None, but its base class does not say so
            model.learn(
                spec.budget - start,
                callback=[*bench.callbacks(), recorder],
                log_interval=None,  # type: ignore[arg-type]
                reset_num_timesteps=start == 0,
            )
        else:
            recorder.init_callback(model)
        recorder.finish()
    model.save(folder.model)
    if spec.task.vec_env in POSITIONS:
        save_visits(folder.visits, model, POSITIONS[spec.task.vec_env])
    if state.histograms:
        save_densities(folder.densities, state.histograms)
    for measure in measures:
        measure.close()
    env.close()
    outcome = {**_outcome(state, str(model.device)), "parameters": count_parameters(model)}
    if isinstance(precision := getattr(model, "precision", None), str):
        # What "auto" came to on this machine
        outcome["precision"] = str(resolve_precision(precision, model.device)).removeprefix("torch.")
    return outcome


def _compute_baseline(folder: RunFolder, spec: RunSpec) -> dict[str, Any]:
    from sb3_rpg.envs import random_coverage

    state, start = RunState(origins=[origin()]), time.monotonic()
    steps, values = random_coverage(RANDOM_BASELINES[spec.base], spec.budget, spec.seed)  # type: ignore[arg-type]
    metric = spec.metrics[0]
    due = sorted({*range(0, spec.budget, metric.every), spec.budget})
    # Each value holds from its own step on
    places = steps.searchsorted(due, side="right") - 1
    folder.write_rows([Row("coverage", step, float(values[place])) for step, place in zip(due, places, strict=True)])
    state.seconds = state.cpu_seconds = time.monotonic() - start
    state.peak_memory = peak_memory()
    return _outcome(state, "cpu")


def _outcome(state: RunState, device: str) -> dict[str, Any]:
    """What the manifest says of a finished run."""
    first, *later = state.origins
    return {
        **first,
        "dirty": None if first["dirty"] is None else any(session["dirty"] for session in state.origins),
        # Code may have changed between the sessions of an interrupted run
        "resumed_with": [session["commit"] for session in later if session["commit"] != first["commit"]],
        "resumes": state.resumes,
        "hours": round(state.seconds / 3600, 4),
        "cpu_hours": round(state.cpu_seconds / 3600, 4),
        # Without what measurements took
        "training_hours": round((state.seconds - state.measuring_seconds) / 3600, 6),
        "training_cpu_hours": round((state.cpu_seconds - state.measuring_cpu_seconds) / 3600, 6),
        "peak_memory_mb": round(state.peak_memory / 2**20),
        "device": device,
        "environment": environment(),
    }


@contextlib.contextmanager
def _stop_request(folder: RunFolder) -> Iterator[StopRequest]:
    """
    Ask for a stop on the signals of termination, and when the process that started this one has died: no run is left behind
    unseen.
    """
    stop, parent, done = StopRequest(folder), os.getppid(), threading.Event()

    def watch_parent() -> None:
        while not done.wait(5.0):
            if os.getppid() != parent:
                stop.signal()

    former = {}
    if threading.current_thread() is threading.main_thread():
        former = {number: signal.signal(number, stop.signal) for number in (signal.SIGTERM, signal.SIGINT)}
    threading.Thread(target=watch_parent, daemon=True).start()
    try:
        yield stop
    finally:
        done.set()
        for number, handler in former.items():
            signal.signal(number, handler)


def main(arguments: list[str] | None = None) -> int:
    """
    :param arguments: command line; None: that of the process
    :return: exit code
    """
    defaults = WorkerOptions()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.worker", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--checkpoint-every", type=float, default=defaults.checkpoint_every)
    parser.add_argument("--device", default=defaults.device)
    parser.add_argument("--gym-packages", nargs="+", default=[])
    parsed = parser.parse_args(arguments)
    options = WorkerOptions(parsed.checkpoint_every, parsed.device, tuple(parsed.gym_packages))
    return execute(parsed.folder, options)


if __name__ == "__main__":
    sys.exit(main())
