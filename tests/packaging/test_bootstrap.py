"""The environments that ``python3 -m tests`` and the benchmarks make for themselves; nothing is downloaded here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import bootstrap
from tests.packaging.conftest import ROOT

EXTRAS = ("zoo", "plots")


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """What pip is asked to install, instead of pip; environments are made without pip, which takes seconds."""
    calls: list[tuple[str, ...]] = []
    create = bootstrap.venv.create
    monkeypatch.delenv(bootstrap.SWITCH, raising=False)
    monkeypatch.setattr(bootstrap, "_pip_install", lambda python, *arguments: calls.append(arguments))
    monkeypatch.setattr(bootstrap.venv, "create", lambda path, **kwargs: create(path, **{**kwargs, "with_pip": False}))
    return calls


def test_installs_torch_first_and_the_checkout_with_its_extras(tmp_path: Path, installed: list[tuple[str, ...]]) -> None:
    python = bootstrap.ensure_venv(tmp_path / "venv", EXTRAS)
    assert python.is_file()
    assert installed == [("torch==2.13.0",), ("--editable", f"{ROOT}[zoo,plots]")]


def test_complete_environment_is_used_again(tmp_path: Path, installed: list[tuple[str, ...]]) -> None:
    python = bootstrap.ensure_venv(tmp_path / "venv", EXTRAS)
    installed.clear()
    assert bootstrap.ensure_venv(tmp_path / "venv", EXTRAS) == python
    assert bootstrap.ensure_venv(tmp_path / "venv", tuple(reversed(EXTRAS))) == python
    assert installed == []


def test_other_extras_make_it_anew(tmp_path: Path, installed: list[tuple[str, ...]]) -> None:
    bootstrap.ensure_venv(tmp_path / "venv", EXTRAS)
    (tmp_path / "venv" / "of the old one").touch()
    bootstrap.ensure_venv(tmp_path / "venv", ("zoo",))
    assert installed[-1] == ("--editable", f"{ROOT}[zoo]")
    assert not (tmp_path / "venv" / "of the old one").exists()


def test_half_made_environment_is_made_anew(
    tmp_path: Path, installed: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(python: Path, *arguments: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
        context.setattr(bootstrap, "_pip_install", interrupted)
        bootstrap.ensure_venv(tmp_path / "venv", EXTRAS)
    assert (tmp_path / "venv" / "pyvenv.cfg").is_file()
    bootstrap.ensure_venv(tmp_path / "venv", EXTRAS)
    assert len(installed) == 2


@pytest.mark.parametrize("name", bootstrap.INSTALL_INPUTS)
def test_fingerprint_follows_what_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for path in bootstrap.INSTALL_INPUTS:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes((ROOT / path).read_bytes())
    monkeypatch.setattr(bootstrap, "ROOT", tmp_path)
    before = bootstrap.fingerprint(EXTRAS)
    assert bootstrap.fingerprint(EXTRAS) == before
    (tmp_path / name).write_text("changed\n")
    assert bootstrap.fingerprint(EXTRAS) != before


def test_a_folder_of_the_users_is_not_removed(tmp_path: Path, installed: list[tuple[str, ...]]) -> None:
    (tmp_path / "precious").touch()
    with pytest.raises(bootstrap.BootstrapError, match="not a virtual environment"):
        bootstrap.ensure_venv(tmp_path, EXTRAS)
    assert (tmp_path / "precious").is_file()
    assert installed == []


def test_old_python_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "MINIMUM_PYTHON", (99, 0))
    with pytest.raises(bootstrap.BootstrapError, match=r"needs Python 99\.0 or newer, this is Python 3\."):
        bootstrap.ensure_venv(tmp_path / "venv", EXTRAS)


def test_failing_pip_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # pip itself, kept from its index
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(bootstrap.BootstrapError, match=r"could not install surely-not-there .*check the network"):
        bootstrap._pip_install(Path(sys.executable), "surely-not-there")


def test_switch_uses_the_running_interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(bootstrap.SWITCH, "0")
    assert bootstrap.ensure_venv(tmp_path / "venv", EXTRAS) == Path(sys.executable)
    assert not (tmp_path / "venv").exists()


def test_runs_commands_from_the_root_and_hands_on_the_exit_code(tmp_path: Path, installed: list[tuple[str, ...]]) -> None:
    script = f"""
import os, sys
inside = sys.prefix == {str(tmp_path / "venv")!r} and os.getcwd() == {str(ROOT)!r}
sys.exit(7 if inside and os.environ["COLOUR"] == "red" else 1)
"""
    assert bootstrap.run_in_venv(tmp_path / "venv", EXTRAS, ["-c", script], {"COLOUR": "red"}) == 7


def test_relaunch(tmp_path: Path, installed: list[tuple[str, ...]]) -> None:
    with pytest.raises(SystemExit) as stop:
        bootstrap.relaunch_in_venv(tmp_path / "venv", EXTRAS, "tokenize", [str(tmp_path / "missing.py")])
    assert stop.value.code == 1
    with pytest.raises(SystemExit) as stop:
        bootstrap.relaunch_in_venv(tmp_path / "venv", EXTRAS, "tokenize", [str(ROOT / "setup.py")])
    assert stop.value.code == 0


def test_relaunch_goes_on_inside(tmp_path: Path, installed: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "venv"))
    bootstrap.relaunch_in_venv(tmp_path / "venv", EXTRAS, "benchmarks.maze_demo")
    assert installed == []


@pytest.mark.parametrize("module", ["benchmarks.bootstrap", "tests.__main__"])
def test_a_fresh_clone_needs_the_standard_library_only(module: str) -> None:
    # -I -S: neither site-packages nor the environment
    script = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import {module}"
    subprocess.run([sys.executable, "-I", "-S", "-c", script], check=True, timeout=60)
