"""What wheels and source archives contain."""

from __future__ import annotations

import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.packaging.conftest import HOOK, HOOK_FILES, PTH, ROOT, START, command

BUILD = "import sys; from setuptools import build_meta; print(build_meta.{hook}(sys.argv[1]))"


def build(checkout: Path, hook: str, target: Path) -> Path:
    """
    :param checkout: the folder to build from
    :param hook: the build backend's function
    :param target: where the archive goes
    :return: the archive
    """
    target.mkdir()
    command(sys.executable, "-c", BUILD.format(hook=hook), target, cwd=checkout)
    (archive,) = target.iterdir()
    return archive


def test_wheel_holds_the_package_the_hook_and_the_hyperparameters(checkout: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(build(checkout, "build_wheel", tmp_path / "wheel")) as wheel:
        names = set(wheel.namelist())
        assert HOOK_FILES <= names
        assert {name.split("/")[0] for name in names} == {"sb3_rpg", "sb3_rpg-0.1.0.dist-info", *HOOK_FILES}
        modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "sb3_rpg").rglob("*.py")}
        assert modules <= names
        assert {"sb3_rpg/py.typed", "sb3_rpg/version.txt"} <= names
        shipped = {path.name: path.read_bytes() for path in (ROOT / "hyperparams").glob("*.yml")}
        assert {"rpg.yml", "sac.yml", "sac_rnd.yml"} <= set(shipped)
        assert {name: wheel.read(f"sb3_rpg/hyperparams/{name}") for name in shipped} == shipped
        assert wheel.read(f"{HOOK}.pth").decode() == PTH
        assert wheel.read(f"{HOOK}.start").decode() == START
        assert wheel.read(f"{HOOK}.py") == (ROOT / "sb3_rpg" / "zoo" / "startup_hook.py").read_bytes()


def test_metadata(checkout: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(build(checkout, "build_wheel", tmp_path / "wheel")) as wheel:
        metadata = Parser().parsestr(wheel.read("sb3_rpg-0.1.0.dist-info/METADATA").decode())
        record = wheel.read("sb3_rpg-0.1.0.dist-info/RECORD").decode()
    assert metadata["Requires-Python"] == ">=3.10"
    assert set(metadata.get_all("Provides-Extra", [])) == {
        "zoo",
        "plots",
        "envs",
        "modes",
        "export",
        "hub",
        "ray",
        "tests",
        "tutorial",
        "all",
    }
    # Uninstalling removes what is recorded
    assert HOOK_FILES <= {line.split(",")[0] for line in record.splitlines()}


def test_source_archive_builds_the_same_wheel(checkout: Path, tmp_path: Path) -> None:
    archive = build(checkout, "build_sdist", tmp_path / "sdist")
    with tarfile.open(archive) as tar:
        # Python's early releases of 3.10 and 3.11 have no filters, later ones want one to be chosen
        tar.extraction_filter = getattr(tarfile, "data_filter", None)
        tar.extractall(tmp_path / "unpacked")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    with (
        zipfile.ZipFile(build(unpacked, "build_wheel", tmp_path / "from_sdist")) as from_sdist,
        zipfile.ZipFile(build(checkout, "build_wheel", tmp_path / "from_checkout")) as from_checkout,
    ):
        assert sorted(from_sdist.namelist()) == sorted(from_checkout.namelist())


def test_constraints_pin_every_requirement_within_its_bounds(checkout: Path, tmp_path: Path) -> None:
    pins = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            pin = Requirement(line)
            if pin.marker is None or pin.marker.evaluate():
                assert pin.name not in pins, f"{pin.name} is pinned twice"
                (specifier,) = pin.specifier
                assert specifier.operator == "=="
                pins[canonicalize_name(pin.name)] = specifier.version
    with zipfile.ZipFile(build(checkout, "build_wheel", tmp_path / "wheel")) as wheel:
        metadata = Parser().parsestr(wheel.read("sb3_rpg-0.1.0.dist-info/METADATA").decode())
    requirements = [Requirement(text) for text in metadata.get_all("Requires-Dist", [])]
    assert len(requirements) > 20
    for requirement in requirements:
        name = canonicalize_name(requirement.name)
        assert name in pins, f"constraints.txt has no line for {name}"
        assert requirement.specifier.contains(pins[name]), f"{requirement} does not allow {pins[name]}"
