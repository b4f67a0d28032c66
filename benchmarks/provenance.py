"""Where numbers come from: code, versions and machine."""

from __future__ import annotations

import datetime
import platform
import subprocess
import sys
from importlib import metadata
from typing import Any

from benchmarks.bootstrap import ROOT

PACKAGES = ("torch", "numpy", "gymnasium", "stable-baselines3", "sb3-contrib", "rl-zoo3")
# Recorded where a run imported them
OPTIONAL_PACKAGES = {"mujoco": "mujoco", "gymnasium_robotics": "gymnasium-robotics", "metaworld": "metaworld"}
# What a run does not depend on; results are written while other runs go on
NOT_CODE = (":!benchmarks/results", ":!docs", ":!*.md", ":!tests")


def origin() -> dict[str, Any]:
    """
    :return: the code that a run starts with, and the day
    """
    status = _git("status", "--porcelain", "--", ".", *NOT_CODE)
    return {
        "commit": _git("rev-parse", "HEAD"),
        "dirty": None if status is None else bool(status),
        "started": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
    }


def environment() -> dict[str, str]:
    """
    :return: versions and machine, at a run's end: by then it has imported all that it needs
    """
    import sb3_rpg

    names = [*PACKAGES, *(package for module, package in OPTIONAL_PACKAGES.items() if module in sys.modules)]
    versions = {"python": platform.python_version(), **{name: _version(name) for name in names}}
    return {**versions, "sb3_rpg": sb3_rpg.__version__, "system": platform.system(), "processor": processor_name()}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def peak_memory() -> int:
    """
    :return: most bytes that this process has held in memory so far; 0 where the system does not tell
    """
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def processor_name() -> str:
    """
    :return: the processor's name, as far as the system tells
    """
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def _git(*arguments: str) -> str | None:
    command = ["git", "-C", str(ROOT), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None  # an unpacked archive has no history
