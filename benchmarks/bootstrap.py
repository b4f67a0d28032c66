"""
Runs a command in a virtual environment that holds this checkout and pinned versions of all it needs.

Uses the standard library only, so that ``python3 -m tests`` and ``python3 -m benchmarks.maze_demo`` work in a fresh clone.
Set ``SB3_RPG_VENV=0`` to use the running interpreter and what is installed there instead.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / "constraints.txt"
SWITCH = "SB3_RPG_VENV"
STAMP = "sb3_rpg-complete.txt"
# What is installed depends on these; the package's other files are used from the checkout
INSTALL_INPUTS = ("setup.py", "pyproject.toml", "constraints.txt", "sb3_rpg/version.txt", "sb3_rpg/zoo/startup_hook.py")
MINIMUM_PYTHON = (3, 10)


class BootstrapError(RuntimeError):
    """The environment could not be made; the message says what to do."""


def run_in_venv(
    path: str | Path,
    extras: Sequence[str],
    command: Sequence[str],
    variables: Mapping[str, str] | None = None,
) -> int:
    """
    Run Python with some arguments inside an environment, making the environment first where it is not complete.

    :param path: the environment's folder; a relative one counts from the root of the checkout
    :param extras: the extras of sb3_rpg to install: ``("zoo", "plots")``
    :param command: the arguments of the interpreter: ``("-m", "benchmarks.maze_demo", "--seed", "1")``
    :param variables: environment variables to set for the command
    :return: the command's exit code
    :raises BootstrapError: if the environment cannot be made
    """
    python = ensure_venv(path, extras)
    # The root is the working directory's stand-in for an installed `benchmarks` or `tests`
    return subprocess.run([str(python), *command], cwd=ROOT, env={**os.environ, **(variables or {})}, check=False).returncode


def relaunch_in_venv(path: str | Path, extras: Sequence[str], module: str, arguments: Sequence[str] | None = None) -> None:
    """
    Go on in an environment: returns at once inside it (or with ``SB3_RPG_VENV=0``), otherwise runs the module in it
    and exits with its exit code. For the first line of a benchmark's ``if __name__ == "__main__"``.

    :param path: the environment's folder; a relative one counts from the root of the checkout
    :param extras: the extras of sb3_rpg to install
    :param module: the module to run: ``"benchmarks.maze_demo"``
    :param arguments: its command line, that of the running program by default
    """
    if switched_off() or Path(sys.prefix).resolve() == (ROOT / path).resolve():
        return
    try:
        code = run_in_venv(path, extras, ["-m", module, *(sys.argv[1:] if arguments is None else arguments)])
    except BootstrapError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)


def switched_off() -> bool:
    """
    :return: whether the user wants the running interpreter to be used as it is
    """
    return os.environ.get(SWITCH) == "0"


def ensure_venv(path: str | Path, extras: Sequence[str]) -> Path:
    """
    Make an environment, unless a complete one for the same Python, requirements and extras is there.

    :param path: the environment's folder; a relative one counts from the root of the checkout
    :param extras: the extras of sb3_rpg to install
    :return: the environment's interpreter
    :raises BootstrapError: if it cannot be made
    """
    if sys.version_info < MINIMUM_PYTHON:
        raise BootstrapError(
            f"sb3_rpg needs Python {'.'.join(map(str, MINIMUM_PYTHON))} or newer, this is Python {sys.version.split()[0]} "
            f"({sys.executable}). Start the same command with a newer interpreter, for example `python3.11 -m ...`."
        )
    folder = ROOT / path
    if switched_off():
        return Path(sys.executable)
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp, wanted = folder / STAMP, fingerprint(extras)
    if python.is_file() and stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted:
        return python
    _remove(folder)
    print(f"Making the environment {folder} (a few minutes, this time only) ...", flush=True)
    try:
        venv.create(folder, with_pip=True, symlinks=os.name != "nt")
    except (subprocess.CalledProcessError, OSError) as error:
        raise BootstrapError(
            f"path={str(path)!r}: the environment could not be made ({error}). On Debian and Ubuntu, install the package "
            "python3-venv; otherwise check that the folder is writable."
        ) from error
    # On its own and first: the very build that the constraints name, for instance a CPU build among pip's find-links,
    # is in place before anything that asks for just any torch
    _pip_install(python, torch_requirement())
    _pip_install(python, "--editable", f"{ROOT}[{','.join(extras)}]")
    # Last, so that an environment left half-made is made anew
    stamp.write_text(wanted, encoding="utf-8")
    return python


def torch_requirement() -> str:
    """
    :return: the line of the constraints that pins torch
    """
    for line in CONSTRAINTS.read_text(encoding="utf-8").splitlines():
        requirement = line.split("#")[0].strip()
        if requirement.startswith("torch=="):
            return requirement
    raise BootstrapError(f"{CONSTRAINTS} has no line 'torch==VERSION': add it.")


def fingerprint(extras: Sequence[str]) -> str:
    """
    :param extras: the extras of sb3_rpg to install
    :return: a text that changes with everything that an environment depends on
    """
    digest = hashlib.sha256()
    for part in (str(ROOT), sys.version, *sorted(extras)):
        digest.update(f"{part}\n".encode())
    for name in INSTALL_INPUTS:
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def _remove(folder: Path) -> None:
    if not folder.exists():
        return
    if not (folder / "pyvenv.cfg").is_file() and any(folder.iterdir()):
        raise BootstrapError(f"path={str(folder)!r} exists and is not a virtual environment: move it away or name another.")
    shutil.rmtree(folder)


def _pip_install(python: Path, *arguments: str) -> None:
    command = [
        str(python),
        "-m",
        "pip",
        "install",
        "--disable-pip-version-check",
        "--constraint",
        str(CONSTRAINTS),
        *arguments,
    ]
    code = subprocess.run(command, check=False).returncode
    if code != 0:
        raise BootstrapError(
            f"pip could not install {arguments[-1]} (exit code {code}, its reason stands above). Making the environment "
            "needs access to a package index: check the network and pip's configuration, then start the same command again."
        )
