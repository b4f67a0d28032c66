"""The start-up hook by itself, with small stand-ins for RL Zoo and for this package."""

from __future__ import annotations

import os
import pkgutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from sb3_rpg.zoo import startup_hook
from tests.packaging.conftest import HOOK, PTH, ROOT, START

NOTES_PATCHES = "def patch_module(module): module.patched = getattr(module, 'patched', 0) + 1\n"
IMPORT_ZOO = """
import importlib, sys
for name in ("utils", "hyperparams_opt", "exp_manager", "plots"):
    module = importlib.import_module("rl_zoo3." + name)
    print(name, module.NAME, getattr(module, "patched", 0))
"""
PATCHED = "utils utils 1\nhyperparams_opt hyperparams_opt 1\nexp_manager exp_manager 1\nplots plots 0\n"
UNPATCHED = PATCHED.replace(" 1\n", " 0\n")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder for the path: the hook's files as installed, a stand-in for RL Zoo, and one for sb3_rpg."""
    (tmp_path / f"{HOOK}.py").write_bytes((ROOT / "sb3_rpg" / "zoo" / "startup_hook.py").read_bytes())
    (tmp_path / f"{HOOK}.pth").write_text(PTH)
    (tmp_path / "rl_zoo3").mkdir()
    (tmp_path / "rl_zoo3" / "__init__.py").touch()
    for name in ("utils", "hyperparams_opt", "exp_manager", "plots"):
        (tmp_path / "rl_zoo3" / f"{name}.py").write_text(f"NAME = {name!r}\n")
    (tmp_path / "sb3_rpg" / "zoo").mkdir(parents=True)
    (tmp_path / "sb3_rpg" / "__init__.py").touch()
    (tmp_path / "sb3_rpg" / "zoo" / "__init__.py").touch()
    (tmp_path / "sb3_rpg" / "zoo" / "registration.py").write_text(NOTES_PATCHES)
    return tmp_path


def start(folder: Path, script: str, *options: str, **variables: str) -> tuple[str, str]:
    """
    Start the interpreter with the folder treated as site-packages are.

    :param folder: see the fixture
    :param script: Python code
    :param options: options of the interpreter
    :param variables: environment variables
    :return: what it printed on its two streams
    """
    environment = {key: value for key, value in os.environ.items() if key != startup_hook.SWITCH}
    # -S: an sb3_rpg that is installed here must not start its own hook
    as_site_packages = f"import site; site.addsitedir({str(folder)!r})\n"
    result = subprocess.run(
        [sys.executable, "-S", *options, "-c", as_site_packages + script],
        env={**environment, "PYTHONPATH": str(folder), **variables},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout, result.stderr


def test_patches_the_three_modules_once(folder: Path) -> None:
    assert start(folder, IMPORT_ZOO) == (PATCHED, "")


def test_patches_again_after_a_reload(folder: Path) -> None:
    script = "import importlib, rl_zoo3.utils as u; del u.patched; importlib.reload(u); print(u.patched)"
    assert start(folder, script) == ("1\n", "")


def test_patches_a_zoo_in_a_zip_archive(folder: Path) -> None:
    # There all modules share one loader
    with zipfile.ZipFile(folder / "zoo.zip", "w") as archive:
        for path in (folder / "rl_zoo3").iterdir():
            archive.write(path, f"rl_zoo3/{path.name}")
            path.unlink()
    (folder / "rl_zoo3").rmdir()
    assert start(folder, f"import sys; sys.path.insert(0, {str(folder / 'zoo.zip')!r})\n{IMPORT_ZOO}") == (PATCHED, "")


def test_keeps_loaders_as_they_are(folder: Path) -> None:
    script = "import inspect, rl_zoo3.utils as u; print(type(u.__loader__).__name__, inspect.getsource(u).strip())"
    assert start(folder, script) == ("SourceFileLoader NAME = 'utils'\n", "")


@pytest.mark.parametrize(
    "breakage",
    [
        pytest.param("raise RuntimeError('broken')", id="raises"),
        pytest.param("import a_module_that_is_not_there", id="lacks a dependency"),
        pytest.param("def", id="does not compile"),
    ],
)
def test_broken_package_leaves_the_zoo_intact_with_one_warning(folder: Path, breakage: str) -> None:
    (folder / "sb3_rpg" / "zoo" / "registration.py").write_text(f"{breakage}\n")
    output, errors = start(folder, IMPORT_ZOO)
    assert output == UNPATCHED
    assert errors.count("sb3_rpg could not register itself with RL Zoo") == 1
    assert f"set {startup_hook.SWITCH}=0" in errors


def test_warnings_as_errors_leave_the_zoo_intact(folder: Path) -> None:
    (folder / "sb3_rpg" / "zoo" / "registration.py").write_text("raise RuntimeError('broken')\n")
    output, errors = start(folder, IMPORT_ZOO, "-W", "error")
    assert output == UNPATCHED
    assert errors.count("sb3_rpg could not register itself with RL Zoo") == 1


def test_missing_package_leaves_the_zoo_intact(folder: Path) -> None:
    output, errors = start(folder, f"import sys; sys.modules['sb3_rpg'] = None\n{IMPORT_ZOO}")
    assert output == UNPATCHED
    assert errors.count("ModuleNotFoundError") == 1


def test_a_zoo_that_fails_by_itself_fails_as_without_the_hook(folder: Path) -> None:
    (folder / "rl_zoo3" / "utils.py").write_text("raise ZeroDivisionError('the Zoo')\n")
    script = "try:\n    import rl_zoo3.utils\nexcept ZeroDivisionError as error:\n    print(error)"
    assert start(folder, script) == ("the Zoo\n", "")


def test_switch(folder: Path) -> None:
    assert start(folder, IMPORT_ZOO, **{startup_hook.SWITCH: "0"}) == (UNPATCHED, "")


def test_start_imports_nothing_but_the_hook(folder: Path) -> None:
    list_modules = "import sys; print(*sorted(sys.modules))"
    with_hook, _ = start(folder, list_modules)
    (folder / f"{HOOK}.pth").unlink()
    without, _ = start(folder, list_modules)
    assert set(with_hook.split()) - set(without.split()) == {HOOK}


def test_installs_one_finder(folder: Path) -> None:
    script = f"""
import sys, {HOOK}
{HOOK}.install()
{HOOK}.install()
print([type(finder).__name__ for finder in sys.meta_path].count("ZooFinder"))
"""
    assert start(folder, script) == ("1\n", "")


def test_start_file_names_a_callable_as_pep_829_asks(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    # What Python 3.15 does with each line of a .start file
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delenv(startup_hook.SWITCH, raising=False)
    sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder).__name__ != "ZooFinder"]
    try:
        pkgutil.resolve_name(START.strip())()
        assert type(sys.meta_path[0]).__name__ == "ZooFinder"
    finally:
        sys.modules.pop(HOOK, None)
