"""Where runs are executed: in processes of this machine, or on a Ray cluster. Both call the same worker."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Protocol

from benchmarks.bootstrap import ROOT
from benchmarks.runs import RunFolder
from benchmarks.worker import WorkerOptions

ENGINES = ("local", "ray")
# Networks of this size gain nothing from more threads, and runs beside each other would only wait for each other
ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}


def _variables() -> dict[str, str]:
    """Environment variables of a run's process."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**ONE_THREAD, "PYTHONPATH": os.pathsep.join(paths)}


class Handle(Protocol):
    """A run in execution."""

    def poll(self) -> int | None:
        """
        :return: the worker's exit code once it has ended, else None
        """

    def kill(self) -> None:
        """End it at once; it goes on from its last checkpoint when started again."""


class Engine(Protocol):
    """Starts runs."""

    def jobs(self) -> int:
        """
        :return: how many runs to execute at once, unless the user says
        """

    def start(self, folder: RunFolder, options: WorkerOptions) -> Handle:
        """
        :param folder: a run
        :param options: how to execute it
        :return: the run in execution
        """


class LocalHandle:
    """A process of this machine."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def poll(self) -> int | None:
        return self._process.poll()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


class LocalEngine:
    """One process a run, one thread a process."""

    def jobs(self) -> int:
        if hasattr(os, "sched_getaffinity"):
            return len(os.sched_getaffinity(0))
        return os.cpu_count() or 1

    def start(self, folder: RunFolder, options: WorkerOptions) -> LocalHandle:
        environment = {**os.environ, **_variables()}
        command = [sys.executable, "-m", "benchmarks.worker", str(folder.path), *options.arguments()]
        with open(folder.log, "ab") as log:
            # In a session of its own, a run does not see Ctrl-C: this process passes it on, as a request to stop
            process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return LocalHandle(process)


class RayHandle:
    """
    A task of a Ray cluster.

    :param ray: the module
    :param reference: the task's future exit code
    :param log: where an error goes
    """

    def __init__(self, ray: Any, reference: Any, log: Path) -> None:
        self._ray, self._reference, self._log = ray, reference, log

    def poll(self) -> int | None:
        ready, _ = self._ray.wait([self._reference], timeout=0)
        if not ready:
            return None
        try:
            return int(self._ray.get(self._reference))
        except Exception as error:  # whatever happened to the task or to its node
            with open(self._log, "a", encoding="utf-8") as log:
                log.write(f"{error}\n")
            return 1

    def kill(self) -> None:
        self._ray.cancel(self._reference, force=True)


class RayEngine:
    """
    One task of one core a run, on a running Ray cluster or one made for the occasion. Needs the package ``ray``, and a work
    folder that all nodes share.

    :raises ValueError: if Ray is missing
    """

    def __init__(self) -> None:
        try:
            self._ray: Any = importlib.import_module("ray")
        except ImportError as error:
            raise ValueError("engine='ray' needs the package ray: run `pip install 'sb3_rpg[ray]'`, or use 'local'") from error
        if not self._ray.is_initialized():
            self._ray.init(runtime_env={"env_vars": _variables()}, log_to_driver=False, include_dashboard=False)
        self._execute = self._ray.remote(num_cpus=1, max_retries=0, max_calls=1)(_execute)

    def jobs(self) -> int:
        return max(1, int(self._ray.cluster_resources().get("CPU", 1)))

    def start(self, folder: RunFolder, options: WorkerOptions) -> RayHandle:
        return RayHandle(self._ray, self._execute.remote(str(folder.path), options), folder.log)


def _execute(path: str, options: WorkerOptions) -> int:
    from benchmarks.worker import execute

    return execute(Path(path), options)


def make_engine(name: str) -> Engine:
    """
    :param name: one of :data:`ENGINES`
    :return: the engine
    :raises ValueError: if the name is unknown or its package is missing
    """
    if name == "local":
        return LocalEngine()
    if name == "ray":
        return RayEngine()
    raise ValueError(f"engine={name!r} is unknown; use one of {ENGINES}")
