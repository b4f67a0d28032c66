"""
All checks of the project: ``python3 -m tests``.

Makes the environment ``.venv-tests`` (first time only), then runs the formatter, the linter, the type checker and the
tests in it. Arguments go to pytest: ``python3 -m tests -k maze``, ``python3 -m tests -m slow``.
"""

from __future__ import annotations

import sys
import time

from benchmarks.bootstrap import BootstrapError, ensure_venv, run_in_venv

VENV = ".venv-tests"
EXTRAS = ("zoo", "plots", "tests")


def main(arguments: list[str]) -> int:
    """
    :param arguments: further arguments of pytest
    :return: 0 if every check passed
    """
    checks = {
        "ruff format": ["ruff", "format", "--check", "."],
        "ruff check": ["ruff", "check", "."],
        "mypy": ["mypy"],
        # The last -m counts, so that one among the arguments replaces the default
        "pytest": ["pytest", "-n", "2", "-m", "not slow", *arguments],
    }
    # Two test processes on two cores: more threads would only wait for each other
    variables = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    try:
        ensure_venv(VENV, EXTRAS)
    except BootstrapError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    results = {}
    for name, command in checks.items():
        print(f"\n=== {name}", flush=True)
        start = time.monotonic()
        code = run_in_venv(VENV, EXTRAS, ["-m", *command], variables)
        results[name] = (code, time.monotonic() - start)
    print("\n=== Summary")
    for name, (code, seconds) in results.items():
        print(f"{name:<12} {'passed' if code == 0 else f'FAILED (exit code {code})'} in {seconds:.1f} s")
    return int(any(code != 0 for code, _ in results.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
