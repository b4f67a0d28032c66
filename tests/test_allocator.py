"""Freed memory stays in the process, unless the user wants otherwise."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from sb3_rpg.allocator import keep_freed_memory

FAULTS = """
import resource, torch as th
from sb3_rpg.allocator import keep_freed_memory
print(keep_freed_memory())
def use():
    blocks = [th.ones(1 << 18) for _ in range(20)]
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
USERS_OWN = ["SB3_RPG_KEEP_MEMORY", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"]


def run(**variables: str) -> tuple[bool, int]:
    clean = {name: value for name, value in os.environ.items() if name not in USERS_OWN}
    command = [sys.executable, "-c", FAULTS]
    done, faults = subprocess.run(
        command, env={**clean, **variables}, capture_output=True, text=True, check=True
    ).stdout.split()
    return done == "True", int(faults)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc only")
def test_memory_that_was_freed_is_not_cleared_anew() -> None:
    done, faults = run()
    if not done:
        pytest.skip("not glibc")
    assert faults < 0.5 * run(SB3_RPG_KEEP_MEMORY="0")[1]


@pytest.mark.parametrize("name", USERS_OWN)
def test_the_users_own_settings_are_left_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "0")
    assert not keep_freed_memory()


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not keep_freed_memory()
