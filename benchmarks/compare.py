"""
Compare algorithms on an environment of your own:
``python -m benchmarks.compare --env <id> --algos rpg sac --seeds 5 -n 100000``.

Every algorithm trains with RL Zoo's settings for the environment, on as many cores as there are. It can be interrupted and
goes on when the same command is started again. Draws the learning curves and prints a table.
"""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.executor import INTERRUPTED
from benchmarks.grid import Plan, plan_runs
from benchmarks.report import report
from benchmarks.run import add_execution_arguments, execute
from benchmarks.runs import WORK, RunSpec
from benchmarks.schema import Algorithm, Experiment, Metric, Task
from benchmarks.settings import import_packages

#: evaluations of a run, unless the user says how often
EVALUATIONS = 20
#: the final value of a run is its mean over this last share
FINAL_SHARE = 0.1
EXPONENT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")


def parse_overrides(texts: Sequence[str], algos: Sequence[str]) -> dict[str, dict[str, Any]]:
    """
    :param texts: hyperparameters: ``["rpg.beta=0.02", "sac.policy_kwargs=dict(net_arch=[64, 64])"]``
    :param algos: the algorithms compared
    :return: hyperparameters by algorithm, as a hyperparameter file would state them
    :raises ValueError: if a text has another form or names another algorithm
    """
    import yaml

    overrides: dict[str, dict[str, Any]] = {algo: {} for algo in algos}
    for text in texts:
        name, equals, value = text.partition("=")
        algo, dot, key = name.partition(".")
        if not (equals and dot and key) or algo not in overrides:
            raise ValueError(f"set={text!r} must have the form ALGO.KEY=VALUE, with one of {list(algos)} as ALGO")
        try:
            parsed = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ValueError(f"set={text!r}: the value is no YAML ({error}); quote it") from error
        # To YAML 1.1, 1e-3 is a text: it wants 1.0e-3
        overrides[algo][key] = float(parsed) if isinstance(parsed, str) and EXPONENT.fullmatch(parsed) else parsed
    return overrides


def make_experiment(
    env_id: str, algos: Sequence[str], seeds: int, budget: int, eval_freq: int | None, eval_episodes: int, texts: Sequence[str]
) -> Experiment:
    """
    :param env_id: the environment's id
    :param algos: RL Zoo's names of the algorithms, the baseline second
    :param seeds: number of seeds
    :param budget: environment steps of a run
    :param eval_freq: environment steps between two evaluations; None: :data:`EVALUATIONS` a run
    :param eval_episodes: episodes of an evaluation
    :param texts: see :func:`parse_overrides`
    :return: the comparison
    :raises ValueError: if a value is out of its range
    """
    overrides = parse_overrides(texts, algos)
    every = max(1, budget // EVALUATIONS) if eval_freq is None else eval_freq
    return Experiment(
        name=re.sub(r"\W+", "_", f"{env_id}_n{budget}"),
        title=env_id,
        task=Task(env_id),
        budget=budget,
        metrics=(Metric("return", every, eval_episodes, FINAL_SHARE),),
        algorithms=tuple(Algorithm(algo, algo, overrides[algo]) for algo in algos),
        baseline=algos[min(1, len(algos) - 1)],
        seeds=seeds,
    )


def random_starts(specs: Sequence[RunSpec]) -> list[str]:
    """
    :param specs: runs
    :return: for each algorithm that acts at random for a tenth of its budget or more, what changes that: RL Zoo's settings are
        often meant for a million steps
    """
    notes = {}
    for spec in specs:
        steps = spec.settings.get("learning_starts", 0)
        if steps >= 0.1 * spec.budget:
            notes[spec.label] = (
                f"note: {spec.label} learns nothing for the first {steps:,} of {spec.budget:,} steps; "
                f"--set {spec.label}.learning_starts={spec.budget // 100} changes that"
            )
    return list(notes.values())


def main(arguments: list[str] | None = None) -> int:
    """
    :param arguments: command line; None: that of the process
    :return: exit code
    """
    texts = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    parser.add_argument("--env", required=True, help="id of the environment")
    parser.add_argument("--algos", nargs="+", default=["rpg", "sac"], help="RL Zoo's names (default: rpg sac)")
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds (default: %(default)s)")
    parser.add_argument("--n-timesteps", "-n", type=int, required=True, help="environment steps of a run")
    parser.add_argument("--eval-freq", type=int, help=f"steps between evaluations (default: {EVALUATIONS} evaluations a run)")
    parser.add_argument("--eval-episodes", type=int, default=10, help="episodes of an evaluation (default: %(default)s)")
    parser.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="ALGO.KEY=VALUE",
        help="hyperparameters that replace those of the Zoo's file, as rpg.beta=0.02",
    )
    parser.add_argument("--folder", type=Path, help="where to write (default: benchmarks/work/compare/<env>)")
    add_execution_arguments(parser)
    parsed = parser.parse_args(texts)
    try:
        import_packages(parsed.gym_packages)
        experiment = make_experiment(
            parsed.env, parsed.algos, parsed.seeds, parsed.n_timesteps, parsed.eval_freq, parsed.eval_episodes, parsed.set
        )
        folder = WORK / "compare" / experiment.name if parsed.folder is None else parsed.folder.resolve()
        specs = plan_runs(experiment, None, range(experiment.seeds))
        command = shlex.join(["python", "-m", "benchmarks.compare", *texts])
        for note in random_starts(specs):
            print(note)
        code = execute(Plan(experiment, specs, folder, folder / "results", command), parsed)
        # Seeds that failed are told of above, and are no reason to withhold the others
        if code != INTERRUPTED:
            for path in report(experiment, folder / "results", folder):
                print(f"written: {path}")
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return code


if __name__ == "__main__":
    sys.exit(main())
