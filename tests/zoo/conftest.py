"""Runs RL Zoo's own commands, as a user would type them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HOOK = ROOT / "sb3_rpg" / "zoo" / "startup_hook.py"

# Small enough for a test: a few dozen updates of small networks
SMALL = ("learning_starts:20", "batch_size:8")
SMALL_SAC = (*SMALL, "policy_kwargs:dict(net_arch=[16])")
SMALL_RPG = (*SMALL, "policy_kwargs:dict(net_arch=[16],state_dim=8,hidden_dim=8)", "intrinsic_batch_size:8")

Run = Callable[..., str]


def run_python(folder: Path, *arguments: str, hook: bool = True, expect: int = 0) -> str:
    """
    Run the interpreter in a folder, with the start-up hook as an installed sb3_rpg has it, or without.

    :param folder: the working directory
    :param arguments: the arguments of the interpreter
    :param hook: whether the start-up hook runs
    :param expect: the exit code to expect
    :return: what the command printed
    """
    startup = folder / "startup"
    startup.mkdir(exist_ok=True)
    # Where sb3_rpg is only on the path, nothing calls the hook; tests/packaging covers the installed files
    (startup / "_sb3_rpg_zoo_hook.py").write_bytes(HOOK.read_bytes())
    (startup / "sitecustomize.py").write_text("import _sb3_rpg_zoo_hook\n_sb3_rpg_zoo_hook.install()\n")
    variables = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(startup), str(ROOT)]),
        "SB3_RPG_ZOO_HOOK": "1" if hook else "0",
        "OMP_NUM_THREADS": "1",
        "MPLBACKEND": "Agg",
        # Progress bars of rich break lines where the terminal ends
        "COLUMNS": "200",
    }
    result = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=variables, capture_output=True, text=True, timeout=300, check=False
    )
    output = result.stdout + result.stderr
    assert result.returncode == expect, f"exit code {result.returncode}, expected {expect}:\n{output}"
    return output


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A function that runs the interpreter in the test's own folder."""

    def run_in_folder(*arguments: str, hook: bool = True, expect: int = 0) -> str:
        return run_python(tmp_path, *arguments, hook=hook, expect=expect)

    return run_in_folder


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """
    A folder in which RL Zoo has trained RPG in the maze, with evaluations, checkpoints and the replay buffer,
    in ``logs/rpg/RPGMaze-v0_1``.
    """
    folder = tmp_path_factory.mktemp("trained")
    output = run_python(
        folder,
        *("-m", "rl_zoo3.train", "--algo", "rpg", "--env", "RPGMaze-v0", "--seed", "0", "-n", "120"),
        *("--eval-freq", "60", "--eval-episodes", "2", "--save-freq", "60", "--save-replay-buffer"),
        *("-params", *SMALL_RPG),
    )
    (folder / "train.log").write_text(output)
    return folder
