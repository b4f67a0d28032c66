"""
Run the experiments that the results come from: ``python -m benchmarks.run <experiment>``.

Executes a grid of algorithms and seeds, one process a run with one thread each, and writes curves and a manifest to
``benchmarks/results/<experiment>``. It can be interrupted at any moment: a finished run is never run again, and a killed one
goes on from its last checkpoint when the same command is started again.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from benchmarks.engines import ENGINES, make_engine
from benchmarks.executor import Executor
from benchmarks.experiments import EXPERIMENTS, find_experiment
from benchmarks.grid import ON_CHANGE, Plan, plan_runs
from benchmarks.runs import RESULTS, WORK
from benchmarks.schema import FIRST_TUNING_SEED, Experiment
from benchmarks.settings import import_packages
from benchmarks.worker import WorkerOptions


def parse_seeds(texts: list[str]) -> list[int]:
    """
    :param texts: numbers and ranges: ``["0", "3-5"]``
    :return: the seeds: ``[0, 3, 4, 5]``
    :raises ValueError: if a text is neither
    """
    seeds: list[int] = []
    for text in texts:
        first, _, last = text.partition("-")
        if not first.isdecimal() or (last and not last.isdecimal()) or text.endswith("-"):
            raise ValueError(f"seeds={text!r} is neither a number nor a range such as 0-4")
        numbers = range(int(first), int(last or first) + 1)
        if not numbers:
            raise ValueError(f"seeds={text!r} is empty; did you mean {last}-{first}?")
        seeds += numbers
    return list(dict.fromkeys(seeds))


def check_seeds(seeds: list[int], tuning: bool) -> None:
    """
    :param seeds: seeds of the runs
    :param tuning: whether they are for tuning
    :raises ValueError: if the seeds of results would be used for tuning, or the other way round
    """
    for seed in seeds:
        if (seed >= FIRST_TUNING_SEED) != tuning:
            raise ValueError(
                f"seeds={seed}: seeds from {FIRST_TUNING_SEED} on are for tuning (--tuning), those below for results, so that "
                "no result is made with seeds that settings were chosen by"
            )


def locations(experiment: Experiment, tuning: bool) -> tuple[Path, Path]:
    """
    :param experiment: the experiment
    :param tuning: whether the runs are for tuning
    :return: work folder, and folder of results; the latter is for git only if the runs are exactly the experiment's
    """
    work = (WORK / "tuning" if tuning else WORK) / experiment.name
    published = not tuning and EXPERIMENTS.get(experiment.name) == experiment
    return work, RESULTS / experiment.name if published else work / "results"


def add_execution_arguments(parser: argparse.ArgumentParser) -> None:
    """
    :param parser: gets the arguments about how runs are executed
    """
    options = WorkerOptions()
    parser.add_argument("--jobs", "-j", type=int, help="runs at once (default: one a core)")
    parser.add_argument("--engine", choices=ENGINES, default="local", help="where runs are executed (default: %(default)s)")
    parser.add_argument("--device", default=options.device, help="torch's device (default: %(default)s)")
    parser.add_argument(
        "--checkpoint-every",
        type=float,
        default=options.checkpoint_every,
        metavar="SECONDS",
        help="time between two checkpoints of a run (default: %(default)s)",
    )
    parser.add_argument(
        "--on-change",
        choices=ON_CHANGE,
        default="error",
        help="what happens to runs made or begun with other settings than those of today (default: %(default)s)",
    )
    parser.add_argument(
        "--again",
        action="store_true",
        help="also run what is finished or published, as after a change of the code, which no setting shows, or to have the "
        "models; unfinished runs go on. To go on after an interruption, leave it out",
    )
    parser.add_argument("--gym-packages", nargs="+", default=[], help="packages to import that register environments")


def execute(plan: Plan, arguments: argparse.Namespace) -> int:
    """
    :param plan: what to run
    :param arguments: those of :func:`add_execution_arguments`
    :return: exit code
    :raises ValueError: if an argument is out of its range
    """
    if arguments.jobs is not None and arguments.jobs < 1:
        raise ValueError(f"jobs={arguments.jobs} must be at least 1")
    if arguments.checkpoint_every < 0:
        raise ValueError(f"checkpoint_every={arguments.checkpoint_every} must not be negative")
    options = WorkerOptions(arguments.checkpoint_every, arguments.device, tuple(arguments.gym_packages))
    return Executor(plan, make_engine(arguments.engine), options, arguments.jobs).execute(arguments.on_change, arguments.again)


def list_experiments() -> None:
    """Print all experiments."""
    for experiment in EXPERIMENTS.values():
        labels = ", ".join(algorithm.label for algorithm in experiment.algorithms)
        print(f"{experiment.name}: {experiment.task.env_id}, {experiment.budget:,} steps, {experiment.seeds} seeds: {labels}")
        if experiment.groups:
            print(f"  groups: {', '.join(group.name for group in experiment.groups)}")


def main(arguments: list[str] | None = None) -> int:
    """
    :param arguments: command line; None: that of the process
    :return: exit code
    """
    texts = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("experiment", nargs="?", help="name of an experiment, see --list")
    parser.add_argument("--list", action="store_true", help="print all experiments")
    parser.add_argument("--algos", nargs="+", metavar="LABEL", help="labels of the algorithms to run (default: all)")
    parser.add_argument("--groups", nargs="+", metavar="GROUP", help="run the algorithms of these groups")
    parser.add_argument(
        "--seeds", nargs="+", metavar="SEED", help="seeds or ranges of them, as 0 3-5 (default: the experiment's)"
    )
    parser.add_argument("--n-timesteps", "-n", type=int, help="environment steps of a run, for a try: results stay out of git")
    parser.add_argument("--tuning", action="store_true", help=f"seeds from {FIRST_TUNING_SEED} on; results stay out of git")
    add_execution_arguments(parser)
    parsed = parser.parse_args(texts)
    if parsed.list:
        list_experiments()
        return 0
    if parsed.experiment is None:
        parser.error("name an experiment, or use --list to see them")
    try:
        import_packages(parsed.gym_packages)
        experiment = find_experiment(parsed.experiment)
        if parsed.n_timesteps is not None:
            experiment = experiment.with_budget(parsed.n_timesteps)
        first = FIRST_TUNING_SEED if parsed.tuning else 0
        seeds = parse_seeds(parsed.seeds) if parsed.seeds else list(range(first, first + experiment.seeds))
        check_seeds(seeds, parsed.tuning)
        labels = parsed.algos
        if parsed.groups is not None:
            labels = [*(labels or ()), *experiment.labels_of(parsed.groups)]
        specs = plan_runs(experiment, labels, seeds)
        elsewhere = [f"{label} ({name})" for label, name in experiment.shared.items() if labels is None or label in labels]
        if elsewhere:
            print(f"{experiment.name}: read from the experiments that train them: {', '.join(elsewhere)}")
        command = shlex.join(["python", "-m", "benchmarks.run", *texts])
        return execute(Plan(experiment, specs, *locations(experiment, parsed.tuning), command), parsed)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
