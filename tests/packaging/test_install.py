"""After ``pip install``, in any of its ways, RL Zoo knows RPG."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.packaging.conftest import HOOK_FILES, Environment

WAYS = {
    "wheel": (),
    "editable": ("--editable",),
    "editable strict": ("--config-settings", "editable_mode=strict", "--editable"),
    "editable compat": ("--config-settings", "editable_mode=compat", "--editable"),
}
ASK_THE_ZOO = """
import json, rl_zoo3, sb3_rpg, sb3_rpg.zoo
print(json.dumps([rl_zoo3.ALGOS["rpg"] is sb3_rpg.RPG, sb3_rpg.__file__, str(sb3_rpg.zoo.hyperparams_path("rpg"))]))
"""


@pytest.mark.parametrize(
    "way", [pytest.param(way, marks=() if way == "editable" else pytest.mark.slow) for way in WAYS], ids=lambda way: way
)
def test_install_and_uninstall(environment: Environment, checkout: Path, way: str) -> None:
    environment.install(*WAYS[way], checkout)
    assert environment.startup_files() == HOOK_FILES
    # Copies, not links into the checkout
    assert not any((environment.site_packages / name).is_symlink() for name in HOOK_FILES)

    known, package, hyperparams = json.loads(environment.run(ASK_THE_ZOO).splitlines()[-1])
    assert known
    place = environment.site_packages if way == "wheel" else checkout
    assert Path(package).is_relative_to(place)
    assert Path(hyperparams).is_relative_to(place)

    environment.pip("uninstall", "--yes", "sb3_rpg")
    assert environment.startup_files() == set()


def test_interpreter_survives_a_checkout_that_is_gone(environment: Environment, checkout: Path) -> None:
    environment.install("--editable", checkout)
    shutil.rmtree(checkout)
    assert environment.run("print('fine')") == "fine\n"
    output = environment.run("import rl_zoo3; print(sorted(rl_zoo3.ALGOS))")
    assert output.count("RuntimeWarning: sb3_rpg could not register itself with RL Zoo") == 1
    assert "'sac'" in output
    assert "'rpg'" not in output
