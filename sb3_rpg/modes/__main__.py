"""
The modes of an agent that RL Zoo has trained: ``python -m sb3_rpg.modes --env <id> -f <log folder>``.

Draws latents, acts an episode with each, clusters the paths, and writes pictures, a video with a tile for each mode and
tables.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stable_baselines3.common.utils import set_random_seed

from sb3_rpg.modes import Mode, find_modes, latent_values, sample_latents, slice_latents
from sb3_rpg.modes.pictures import SHOWN_MODES, mode_colors, return_figure, slice_figure, trajectory_figure
from sb3_rpg.modes.tables import format_rows, latent_rows, mode_rows, write_rows
from sb3_rpg.modes.trajectories import first_observation
from sb3_rpg.modes.videos import film_latent, tile_films, write_video
from sb3_rpg.modes.views import make_view, summary
from sb3_rpg.zoo.agents import SavedAgent, find_agent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from sb3_rpg.rpg import RPG


def main(arguments: list[str] | None = None) -> int:
    """
    :param arguments: command line; None: that of the process
    :return: exit code
    """
    parsed = make_parser().parse_args(arguments)
    try:
        show_modes(parsed)
    except (ValueError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def show_modes(arguments: argparse.Namespace) -> None:
    """
    :param arguments: see :func:`make_parser`
    :raises ImportError: if an extra is missing
    :raises ValueError: if there is no such agent, it has no z, or an option does not fit
    """
    agent, model = load(arguments)
    set_random_seed(arguments.seed)
    env = agent.make_env(min(arguments.n_envs, arguments.n_latents), arguments.seed)
    obs = first_observation(env)
    latents = sample_latents(model, obs, arguments.n_latents)
    view = make_view(
        model, env, latents, arguments.descriptor, arguments.x, arguments.y, deterministic=not arguments.stochastic
    )
    modes = find_modes(view.trajectories, arguments.threshold)
    folder = arguments.output or agent.folder / "modes"
    folder.mkdir(parents=True, exist_ok=True)
    written = [
        write_rows(folder / "latents.csv", latent_rows(view.trajectories, modes, latent_values(model, obs, latents))),
        write_rows(folder / "modes.csv", mode_rows(view.trajectories, modes)),
        _save(trajectory_figure(view.drawn, modes, maze=view.maze, labels=view.labels), folder / "trajectories_by_mode.png"),
        _save(trajectory_figure(view.drawn, maze=view.maze, labels=view.labels), folder / "trajectories_by_z.png"),
        _save(return_figure(view.trajectories, modes), folder / "returns_by_mode.png"),
        _save(return_figure(view.trajectories), folder / "returns_by_z.png"),
    ]
    print(format_rows(mode_rows(view.trajectories, modes)))
    print(summary(view, modes))
    if arguments.slice_points:
        through = [mode.latent for mode in modes[:2]] if len(modes) > 1 else None
        try:
            points = arguments.slice_points
            cut = slice_latents(model, obs, through, n_points=points, env=env if arguments.slice_rollouts else None)
            written.append(_save(slice_figure(cut, modes), folder / "slice.png"))
        except ValueError as error:
            print(f"no slice of the latent space: {error}")
    if not arguments.no_video:
        video = make_video(agent, model, modes, folder / "modes", arguments)
        written += [] if video is None else [video]
    env.close()
    for path in written:
        print(f"written: {path}")


def load(arguments: argparse.Namespace) -> tuple[SavedAgent, RPG]:
    """
    :param arguments: see :func:`make_parser`
    :return: the agent, and its model
    :raises ValueError: if there is no such agent, or it has no z
    """
    from sb3_rpg import RPG

    if arguments.n_latents < 2:
        raise ValueError(f"--n-latents {arguments.n_latents}: modes need at least two latents, better a hundred")
    if arguments.n_envs < 1:
        raise ValueError(f"--n-envs {arguments.n_envs} must be at least 1")
    for name in arguments.gym_packages:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ValueError(f"gym_packages={name!r} cannot be imported ({error}): install it or correct its name") from error
    agent = find_agent(
        arguments.algo,
        arguments.env,
        arguments.folder,
        arguments.exp_id,
        arguments.load_best,
        arguments.load_checkpoint,
        arguments.load_last_checkpoint,
        arguments.env_kwargs,
    )
    model = agent.load(arguments.device, arguments.seed)
    if not isinstance(model, RPG):
        raise ValueError(f"--algo {arguments.algo} is {type(model).__name__}, which has no latent z: modes are RPG's")
    if model.latent_space.dim == 0:
        raise ValueError(f"the model {agent.path} was trained with latent='none': without z, it has one mode")
    print(f"Loaded {agent.path}")
    return agent, model


def make_video(agent: SavedAgent, model: RPG, modes: Sequence[Mode], path: Path, arguments: argparse.Namespace) -> Path | None:
    """
    :param agent: the agent
    :param model: its model
    :param modes: its modes; the largest get a tile each
    :param path: the file without suffix
    :param arguments: ``seed``, ``stochastic``
    :return: the video, or None (and a line that says why) where the environment does not render, or not on this machine
    """
    if not agent.can_render():
        print(f"no video: {agent.env_id} has no render mode 'rgb_array'")
        return None
    films, fps = [], 30.0
    for mode in modes[:SHOWN_MODES]:
        # Anew for each: some environments draw what happened in earlier episodes too
        env = agent.make_env(1, arguments.seed, render=True)
        try:
            films.append(film_latent(model, env, mode.latent, not arguments.stochastic))
        except ImportError:
            raise
        except Exception as error:  # renderers fail in ways of their own: no screen, no OpenGL
            print(f"no video: {agent.env_id} cannot render here: {error}")
            return None
        fps = float((env.get_attr("metadata")[0] or {}).get("render_fps", fps))
        env.close()
    captions = [
        f"mode {mode.number}: return {film.episode_return:.4g}"
        + ("" if film.success is None else f", {_outcome(film.success)}")
        for mode, film in zip(modes, films, strict=False)
    ]
    return write_video(path, tile_films(films, captions, mode_colors(len(modes))[: len(films)]), fps)


def make_parser() -> argparse.ArgumentParser:
    """
    :return: the command line, named as RL Zoo's ``enjoy`` names its own
    """
    parser = argparse.ArgumentParser(prog="python -m sb3_rpg.modes", description=__doc__)
    parser.add_argument("--algo", default="rpg", help="RL Zoo's name of the algorithm (default: %(default)s)")
    parser.add_argument("--env", required=True, help="id of the environment")
    parser.add_argument("-f", "--folder", default="logs", help="RL Zoo's log folder (default: %(default)s)")
    parser.add_argument("--exp-id", type=int, default=0, help="number of the run; 0: the latest (default: %(default)s)")
    parser.add_argument("--load-best", action="store_true", help="the best model instead of the last")
    parser.add_argument("--load-checkpoint", type=int, metavar="STEP", help="the checkpoint of this step instead")
    parser.add_argument("--load-last-checkpoint", action="store_true", help="the last checkpoint instead")
    parser.add_argument("-n", "--n-latents", type=int, default=128, help="latents to draw (default: %(default)s)")
    parser.add_argument("--n-envs", type=int, default=8, help="environments to act in at a time (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed (default: %(default)s)")
    parser.add_argument("--stochastic", action="store_true", help="sample actions instead of taking their mode")
    parser.add_argument("-o", "--output", type=Path, help="folder to write to (default: modes/ in the run's folder)")
    parser.add_argument(
        "--descriptor",
        nargs="+",
        metavar="WHAT",
        help="what paths are made of: entries of the observation (0 1 5), an entry of info (x_position), or actions "
        "(default: the position in the maze; else principal components of the observations)",
    )
    parser.add_argument("--x", type=int, help="dimension of the descriptor on the horizontal axis (default: 0)")
    parser.add_argument("--y", type=int, help="dimension of the descriptor on the vertical axis (default: 1)")
    parser.add_argument(
        "--threshold", type=float, default=0.7, help="smaller: finer modes, see find_modes (default: %(default)s)"
    )
    parser.add_argument(
        "--slice-points", type=int, default=21, metavar="N", help="map N x N values of z; 0: none (default: 21)"
    )
    parser.add_argument("--slice-rollouts", action="store_true", help="act an episode for each point of that map too")
    parser.add_argument("--no-video", action="store_true", help="no video of the modes")
    parser.add_argument("--device", default="auto", help="torch's device (default: %(default)s)")
    parser.add_argument("--gym-packages", nargs="+", default=[], help="packages to import that register environments")
    parser.add_argument(
        "--env-kwargs",
        nargs="+",
        action=_KeywordArguments,
        metavar="NAME:VALUE",
        help="arguments of the environment, which go before those of training: reward:\"'escape'\"",
    )
    return parser


class _KeywordArguments(argparse.Action):
    """RL Zoo's ``StoreDict``, loaded only where it is used."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        from rl_zoo3.utils import StoreDict

        StoreDict(self.option_strings, self.dest, nargs=self.nargs)(parser, namespace, values, option_string)


def _outcome(success: bool) -> str:
    return "success" if success else "failure"


def _save(figure: Figure, path: Path) -> Path:
    figure.savefig(path)
    return path


if __name__ == "__main__":
    sys.exit(main())
