"""The grid in real processes: killed, stopped, crashed and resumed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from benchmarks import engines
from benchmarks.bootstrap import ROOT
from benchmarks.display import Display, duration, progress_cells
from benchmarks.engines import LocalEngine, RayEngine, make_engine
from benchmarks.executor import ALL_FINISHED, INTERRUPTED, SOME_FAILED, Executor
from benchmarks.grid import reconcile
from benchmarks.results import Results, read_curve
from benchmarks.runs import Row, RunFolder, locked, read_json, write_json
from benchmarks.worker import BUSY, FINISHED, STOPPED, WorkerOptions
from sb3_rpg.checkpoints import latest_checkpoint
from tests.benchmarks.conftest import ALWAYS, NEVER, bandit_experiment, make_plan, maze_experiment, posix, write_finished


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.executor.POLL_SECONDS", 0.02)


def wait_for(condition: Callable[[], object], seconds: float = 240.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


@dataclass
class FakeHandle:
    """A run that has ended already, or ends when it is asked to stop or, if deaf, when it is killed."""

    folder: RunFolder
    code: int | None
    deaf: bool

    def poll(self) -> int | None:
        stops = self.code is None and self.folder.stop.exists() and not self.deaf
        return STOPPED if stops else self.code

    def kill(self) -> None:
        self.code = -9


@dataclass
class FakeEngine:
    """Finishes runs without running them, unless told another exit code."""

    codes: Sequence[int | None] = ()
    deaf: bool = False
    started: list[str] = field(default_factory=list)
    most_at_once: int = 0
    handles: list[FakeHandle] = field(default_factory=list)

    def jobs(self) -> int:
        return 2

    def start(self, folder: RunFolder, options: WorkerOptions) -> FakeHandle:
        spec, _ = folder.read_spec()
        code = self.codes[len(self.started)] if len(self.started) < len(self.codes) else FINISHED
        self.started.append(spec.name)
        if code == FINISHED:
            write_finished(folder, spec, [Row("coverage", 0, 0.01), Row("coverage", spec.budget, 0.5)])
        self.handles.append(FakeHandle(folder, code, self.deaf))
        return self.handles[-1]


def test_a_killed_run_goes_on_and_a_finished_one_is_not_run_again(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, maze_experiment(budget=400), (0,), ["rpg"])
    (spec, folder), *_ = plan.folders()
    folder.write_spec(spec, plan.command)
    process = LocalEngine().start(folder, ALWAYS)
    wait_for(lambda: (latest_checkpoint(folder.checkpoints) or Path("0")).name > f"{120:012d}")
    process.kill()  # SIGKILL: no chance to write anything
    assert not folder.is_finished()

    assert Executor(plan, LocalEngine(), NEVER, jobs=1).execute() == ALL_FINISHED
    assert "resumed at step" in folder.log.read_text()
    rows = [row for row in read_curve(plan.results / "rpg.csv")[0] if row.metric == "coverage"]
    assert [row.step for row in rows] == [0, 100, 200, 300, 400]
    manifest = read_json(plan.results / "manifest.json")
    assert manifest["runs"]["rpg"]["0"]["resumes"] == 1
    assert manifest["runs"]["rpg"]["0"]["command"] == plan.command
    assert (plan.results / "visits_rpg_0.npz").is_file()

    before = (plan.results / "manifest.json").read_bytes()
    engine = FakeEngine()
    assert Executor(plan, engine, NEVER).execute() == ALL_FINISHED
    assert engine.started == [] and (plan.results / "manifest.json").read_bytes() == before


def test_what_was_made_again_and_not_published_is_published_by_the_next_command(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, maze_experiment(budget=400), (0,), ["rpg"])
    engine = FakeEngine()
    assert Executor(plan, engine, NEVER).execute() == ALL_FINISHED
    (spec, folder), *_ = plan.folders()
    reconcile(plan, "error", again=True)
    write_finished(folder, spec, [Row("coverage", 0, 0.01), Row("coverage", 400, 0.9)])
    assert Executor(plan, engine, NEVER).execute() == ALL_FINISHED
    assert len(engine.started) == 1 and read_curve(plan.results / "rpg.csv")[0][-1].value == 0.9
    # What was made anew elsewhere since, and pulled, is not replaced by what lies here
    elsewhere = replace(plan, work=tmp_path / "elsewhere")
    (_, newer), *_ = elsewhere.folders()
    write_finished(newer, spec, [Row("coverage", 0, 0.01), Row("coverage", 400, 0.7)], hours=9.0)
    Results(plan.results).publish([newer], tmp_path / "lock")
    assert Executor(plan, engine, NEVER).execute() == ALL_FINISHED
    assert len(engine.started) == 1 and read_curve(plan.results / "rpg.csv")[0][-1].value == 0.7


def test_other_commands_do_not_change_the_settings_of_what_waits(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, maze_experiment(), (0, 1), ["rpg"])
    (_, waiting) = plan.folders()[1]

    class Disturbed(FakeEngine):
        def start(self, folder: RunFolder, options: WorkerOptions) -> FakeHandle:
            if not self.started:
                waiting.write_spec(replace(plan.specs[1], settings={"gamma": 0.5}), "another command")
            return super().start(folder, options)

    assert Executor(plan, Disturbed(), NEVER, jobs=1).execute() == ALL_FINISHED
    results = Results(plan.results)
    assert {results.fingerprint_of("rpg", seed) for seed in (0, 1)} == {plan.specs[0].fingerprint()}


def test_checkpoints_of_a_finished_run_do_not_stay(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, maze_experiment(), (0,), ["rpg"])
    (spec, folder), *_ = plan.folders()
    write_finished(folder, spec, [Row("coverage", 0, 0.01)])
    (folder.checkpoints / "000000000100").mkdir(parents=True)
    assert Executor(plan, FakeEngine(), NEVER).execute() == ALL_FINISHED
    assert not folder.checkpoints.exists()


@posix
def test_the_command_stops_with_a_checkpoint(tmp_path: Path) -> None:
    # The command itself, as the test's own experiments are none of its
    arguments = [
        "--env",
        "Pendulum-v1",
        "--algos",
        "sac",
        "--seeds",
        "1",
        "-n",
        "100000",
        "--folder",
        str(tmp_path),
        "-j",
        "1",
    ]
    command = [sys.executable, "-m", "benchmarks.compare", *arguments, "--set", "sac.policy_kwargs=dict(net_arch=[8])"]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    folder = RunFolder(tmp_path / "sac" / "seed_0")
    wait_for(lambda: folder.progress.is_file() and read_json(folder.progress)["step"] > 0)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == INTERRUPTED
    assert "Stopping" in output
    assert latest_checkpoint(folder.checkpoints) is not None
    assert "the checkpoint is written" in folder.log.read_text()


def test_a_crashed_run_is_reported_and_others_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = make_plan(tmp_path, maze_experiment(), (0, 1), ["rpg"])
    engine = FakeEngine(codes=[1])
    assert Executor(plan, engine, NEVER).execute() == SOME_FAILED
    folder = plan.folders()[0][1]
    assert f"error: rpg/seed 0: failed with exit code 1, see {folder.log}" in capsys.readouterr().out
    assert list(read_curve(plan.results / "rpg.csv")) == [1]
    # The next command tries again
    assert Executor(plan, FakeEngine(), NEVER).execute() == ALL_FINISHED
    assert list(read_curve(plan.results / "rpg.csv")) == [0, 1]


def test_a_run_that_somebody_else_stops_is_no_success(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = make_plan(tmp_path, maze_experiment(), (0,), ["rpg"])
    assert Executor(plan, FakeEngine(codes=[STOPPED]), NEVER).execute() == SOME_FAILED
    assert "error: rpg/seed 0: was asked to stop; the same command continues it" in capsys.readouterr().out


def test_no_more_runs_at_once_than_asked_for(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, maze_experiment(), (0, 1))
    engine = FakeEngine(codes=[None] * 4)
    executor = Executor(plan, engine, NEVER, jobs=3)
    display = Display(4)
    executor._waiting = [(spec, folder) for spec, folder in plan.folders()]
    for spec, folder in plan.folders():
        folder.write_spec(spec, plan.command)
    executor._start_runs(display)
    assert engine.started == ["rpg/seed 0", "random_uniform/seed 0", "rpg/seed 1"]
    engine.handles[1].code = STOPPED
    executor._collect_runs(display)
    executor._start_runs(display)
    assert engine.started[3:] == ["random_uniform/seed 1"]
    assert Executor(plan, engine, NEVER).jobs == 2  # as the engine sees fit


@posix
def test_runs_of_another_command_are_left_to_it(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, maze_experiment(), (0, 1), ["rpg"])
    (first, folder), _ = plan.folders()
    engine = FakeEngine()

    def other_command() -> None:
        with locked(folder.lock):
            held.set()
            wait_for(lambda: engine.started)
            write_finished(folder, first, [Row("coverage", 0, 0.25)])

    held = threading.Event()
    thread = threading.Thread(target=other_command)
    thread.start()
    held.wait()
    assert Executor(plan, engine, NEVER).execute() == ALL_FINISHED
    thread.join()
    assert engine.started == ["rpg/seed 1"]
    assert read_curve(plan.results / "rpg.csv")[0] == [Row("coverage", 0, 0.25)]


def test_a_run_that_was_taken_at_the_last_moment_is_tried_again(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, maze_experiment(), (0,), ["rpg"])
    engine = FakeEngine(codes=[BUSY])
    assert Executor(plan, engine, NEVER).execute() == ALL_FINISHED
    assert engine.started == ["rpg/seed 0"] * 2


@posix
@pytest.mark.parametrize("signals", [1, 2])
def test_signals(tmp_path: Path, signals: int) -> None:
    plan = make_plan(tmp_path, maze_experiment(), (0, 1, 2), ["rpg"])
    engine = FakeEngine(codes=[None, None], deaf=signals == 2)
    former = signal.getsignal(signal.SIGINT)

    def interrupt() -> None:
        wait_for(lambda: len(engine.handles) == 2)
        for _ in range(signals):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)

    thread = threading.Thread(target=interrupt)
    thread.start()
    assert Executor(plan, engine, NEVER).execute() == INTERRUPTED
    thread.join()
    assert len(engine.started) == 2  # the third one is not begun any more
    assert all(handle.folder.stop.exists() for handle in engine.handles)
    assert signal.getsignal(signal.SIGINT) is former
    # The request to stop does not outlive the command
    assert Executor(plan, FakeEngine(), NEVER).execute() == ALL_FINISHED
    assert not any(handle.folder.stop.exists() for handle in engine.handles)


def test_what_was_finished_but_not_published_is_published(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, maze_experiment(), (0,), ["rpg"])
    (spec, folder), *_ = plan.folders()
    write_finished(folder, spec, [Row("coverage", 0, 0.01)])
    assert Executor(plan, FakeEngine(), NEVER).execute() == ALL_FINISHED
    assert read_curve(plan.results / "rpg.csv") == {0: [Row("coverage", 0, 0.01)]}


def test_progress_is_readable(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan(tmp_path, maze_experiment(), (0,), ["rpg"])
    (spec, folder), *_ = plan.folders()
    assert progress_cells(spec, folder) == ("rpg/seed 0", "starting", "-", "-", "-")
    progress = {"step": 100, "budget": 1000, "fps": 9.0, "metric": "coverage", "value": 0.25}
    write_json(folder.progress, progress)
    assert progress_cells(spec, folder) == ("rpg/seed 0", "100 / 1,000", "9", "coverage 0.25", "1 min 40 s")
    write_json(folder.progress, {**progress, "fps": None, "metric": None, "value": None})
    assert progress_cells(spec, folder)[2:] == ("-", "-", "-")
    assert duration(3 * 3600 + 62) == "3 h 01 min"
    monkeypatch.setattr("benchmarks.display.PLAIN_SECONDS", 0.0)
    with Display(1) as display:
        display.update([(spec, folder)])
        display.message("a message")
    assert capsys.readouterr().out == "rpg/seed 0: step 100 / 1,000, - steps/s, -, - left\na message\n"


def test_a_terminal_gets_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("rich")
    plan = make_plan(tmp_path, maze_experiment(), (0,), ["rpg"])
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    with Display(4) as display:
        display.finished = 1
        display.update(plan.folders())
        display.failed = 1
        display.update(plan.folders())
        display.message("[kept] as it is")
    output = capsys.readouterr().out
    assert "1 of 4 runs finished, 2 waiting" in output and "[kept] as it is" in output
    assert "1 of 4 runs finished, 1 failed, 1 waiting" in output


def test_engines_are_chosen_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(make_engine("local"), LocalEngine)
    assert LocalEngine().jobs() >= 1
    with pytest.raises(ValueError, match="engine='slurm' is unknown"):
        make_engine("slurm")

    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(engines.importlib, "import_module", missing)
    with pytest.raises(ValueError, match=r"sb3_rpg\[ray\]"):
        make_engine("ray")


@pytest.mark.slow
def test_ray_executes_the_same_worker(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    plan = make_plan(tmp_path, bandit_experiment(), (0,))
    assert Executor(plan, RayEngine(), ALWAYS, jobs=1).execute() == ALL_FINISHED
    assert list(read_curve(plan.results / "sac.csv")) == [0]
