"""Copies of the checkout to build from, and small environments to install into. No network is needed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HOOK = "_sb3_rpg_zoo_hook"
HOOK_FILES = {f"{HOOK}.py", f"{HOOK}.pth", f"{HOOK}.start"}
PTH = f"import {HOOK}; {HOOK}.install()\n"
START = f"{HOOK}:install\n"
PARTS = ("setup.py", "pyproject.toml", "LICENSE", "sb3_rpg", "hyperparams")


def command(*arguments: str | Path, cwd: Path | None = None) -> str:
    """
    :param arguments: a command line
    :param cwd: where to run it
    :return: what it printed; the test fails if the command does
    """
    # Neither the checkout on the path nor the switch of the one who runs the tests may decide what is found
    variables = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "SB3_RPG_ZOO_HOOK")}
    result = subprocess.run(
        list(map(str, arguments)), cwd=cwd, env=variables, capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, f"{arguments} failed:\n{result.stdout}{result.stderr}"
    return result.stdout + result.stderr


@dataclass
class Environment:
    """A virtual environment that shares the packages of the running one, without its start-up files."""

    python: Path
    site_packages: Path

    def pip(self, *arguments: str | Path) -> str:
        """
        :param arguments: the arguments of pip
        :return: what it printed
        """
        return command(sys.executable, "-m", "pip", "--python", self.python, "--disable-pip-version-check", *arguments)

    def install(self, *arguments: str | Path) -> None:
        """
        :param arguments: what to install, without its dependencies
        """
        self.pip("install", "--no-index", "--no-deps", "--no-build-isolation", *arguments)

    def run(self, script: str, *options: str) -> str:
        """
        :param script: Python code
        :param options: options of the interpreter
        :return: what it printed, on both streams
        """
        # From a folder without packages: the working directory is on the path
        return command(self.python, *options, "-c", script, cwd=self.site_packages.parent)

    def startup_files(self) -> set[str]:
        """
        :return: the hook's files in site-packages
        """
        return {path.name for path in self.site_packages.iterdir() if path.name.startswith(HOOK)}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what a build reads: building in the checkout itself would leave files there."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(ROOT / part, folder / part)
    return folder


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    """A new environment. Paths in its .pth file are used as they are: those packages' own .pth files do not run."""
    folder = tmp_path / "venv"
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    site_packages = Path(command(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    shared = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site_packages / "shared.pth").write_text("".join(f"{path}\n" for path in sorted(shared)))
    return Environment(python, site_packages)
