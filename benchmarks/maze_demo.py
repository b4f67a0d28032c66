"""
Train RPG on the maze through RL Zoo for a few minutes and see where each z goes: ``python3 -m benchmarks.maze_demo``.

Makes the environment ``.venv-demo`` (first time only), trains with a progress bar, prints the coverage beside the two random
baselines of the same budget, and writes the picture ``maze_demo/maze.png``.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.bootstrap import relaunch_in_venv

ENV_ID = "RPGMaze-v0"


def train(folder: Path, n_timesteps: int, seed: int) -> Path:
    """
    :param folder: where the Zoo writes its logs
    :param n_timesteps: environment steps
    :param seed: seed of the run
    :return: the folder of the finished run
    :raises SystemExit: if the Zoo fails, with its exit code
    """
    command = [sys.executable, "-m", "sb3_rpg.train", "--algo", "rpg", "--env", ENV_ID, "-n", str(n_timesteps)]
    command += ["--seed", str(seed), "--eval-freq", "-1", "--log-folder", str(folder)]
    command += ["--progress", "--save-replay-buffer", "--verbose", "0"]
    # One thread is as fast as several for networks of this size, and leaves the machine usable
    code = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False).returncode
    if code != 0:
        sys.exit(code)
    runs = (folder / "rpg").glob(f"{ENV_ID}_*")
    return max(runs, key=lambda path: int(path.name.rpartition("_")[2]))


def report(run: Path, picture: Path, seed: int) -> None:
    """
    Print coverages and draw the visited states.

    :param run: the folder of the finished run
    :param picture: the PNG to write
    :param seed: seed of the random baselines
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from stable_baselines3.common.save_util import load_from_pkl

    from sb3_rpg.envs import coverage, positions_of, random_coverage
    from sb3_rpg.envs.maze_plot import draw_visits

    buffer = load_from_pkl(run / "replay_buffer.pkl")
    positions = positions_of(buffer.next_observations[: buffer.size()])  # (steps, n_envs, 2)
    latents = buffer.latents[: buffer.size()]
    n_timesteps = positions.shape[0] * positions.shape[1]
    print(f"\nCoverage of the maze's 100 cells after {n_timesteps} steps, seed {seed}:")
    print(f"  RPG                               {coverage(positions.reshape(-1, 2)):.2f}")
    print(f"  uniform random actions            {random_coverage('uniform', n_timesteps, seed)[1][-1]:.2f}")
    print(f"  one random direction an episode   {random_coverage('direction', n_timesteps, seed)[1][-1]:.2f}")

    figure, axes = plt.subplots(1, 2, figsize=(11, 5.5))
    half = len(positions) // 2
    for axis, rows, title in (
        (axes[0], slice(None, half), f"steps 1 to {half * positions.shape[1]}"),
        (axes[1], slice(half, None), f"steps {half * positions.shape[1] + 1} to {n_timesteps}"),
    ):
        draw_visits(axis, positions[rows].reshape(-1, 2), latents[rows].reshape(-1, latents.shape[-1]), title=title)
    figure.suptitle("States visited by RPG, coloured by the episode's latent z")
    figure.tight_layout()
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=120)
    print(f"\nPicture: {picture}")


def main() -> None:
    """Parse the command line, train and report."""
    parser = argparse.ArgumentParser(prog="python3 -m benchmarks.maze_demo", description=__doc__)
    parser.add_argument("-n", "--n-timesteps", type=int, default=20_000, help="environment steps (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the run (default: %(default)s)")
    parser.add_argument("--folder", type=Path, default=Path("maze_demo"), help="where to write (default: %(default)s)")
    arguments = parser.parse_args()
    run = train(arguments.folder, arguments.n_timesteps, arguments.seed)
    report(run, arguments.folder / "maze.png", arguments.seed)


if __name__ == "__main__":
    relaunch_in_venv(".venv-demo", ("zoo", "plots"), "benchmarks.maze_demo")
    main()
