"""
Run the tutorial and write its page: ``python3 -m benchmarks.tutorial``.

``docs/tutorial.ipynb`` is the source, kept without outputs. Runs it in a Jupyter kernel and writes ``docs/tutorial.md`` and
``docs/images/tutorial_*.png``: text, code, everything that was printed, and the pictures. Makes the environment
``.venv-tutorial`` (first time only).
"""

from __future__ import annotations

import argparse
import os
from base64 import b64decode
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from benchmarks.bootstrap import ROOT, relaunch_in_venv

if TYPE_CHECKING:
    from nbformat import NotebookNode

NOTEBOOK = ROOT / "docs" / "tutorial.ipynb"
PAGE = ROOT / "docs" / "tutorial.md"
PICTURES = ROOT / "docs" / "images"
#: what the names of its pictures begin with
PREFIX = "tutorial_"
#: tag of the cell that holds the budgets
PARAMETERS = "parameters"
#: what a cell may take, in seconds; no more than a guard against hanging
TIMEOUT = 3600


def read_notebook(path: Path = NOTEBOOK) -> NotebookNode:
    """
    :param path: a notebook
    :return: the notebook
    """
    import nbformat

    return nbformat.read(path, as_version=4)


def execute(notebook: NotebookNode, parameters: Mapping[str, Any] | None = None) -> NotebookNode:
    """
    Run all cells, in an empty folder, with this checkout's ``sb3_rpg``.

    :param notebook: left as it is
    :param parameters: variables to set anew after the cell tagged "parameters"
    :return: a copy with the outputs
    :raises ValueError: if a parameter is not set in that cell
    :raises nbclient.exceptions.CellExecutionError: if a cell fails
    """
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.from_dict(notebook)
    (index,) = (i for i, cell in enumerate(notebook.cells) if PARAMETERS in cell.metadata.get("tags", []))
    for name, value in (parameters or {}).items():
        if f"{name} = " not in notebook.cells[index].source:
            raise ValueError(f"parameters={dict(parameters or {})} sets {name!r}, which the cell of parameters does not know")
        notebook.cells[index].source += f"\n{name} = {value!r}"
    # One thread is as fast as several for networks of this size
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with TemporaryDirectory() as folder:
        client = NotebookClient(notebook, timeout=TIMEOUT, coalesce_streams=True, resources={"metadata": {"path": folder}})
        return client.execute(env=variables)


def make_page(notebook: NotebookNode) -> tuple[str, dict[str, bytes]]:
    """
    :param notebook: with outputs
    :return: the page in Markdown, and its pictures (PNG) by file name, which tells the id of the cell that drew it
    :raises ValueError: if a cell wrote to stderr, or drew a picture without ``metadata["alt"]``, which says what it shows
    """
    parts = ["<!-- Written by `python3 -m benchmarks.tutorial` from tutorial.ipynb: change that, not this. -->"]
    pictures = {}
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            continue
        parts.append(f"```python\n{cell.source}\n```")
        for output in cell.outputs:
            if output.output_type == "stream" and output.name == "stderr":
                raise ValueError(f"cell {cell.id!r} wrote to stderr, which no page should show:\n{output.text}")
            if output.output_type == "stream":
                parts.append(f"```\n{output.text.rstrip()}\n```")
            elif "image/png" in output.data:
                if "alt" not in cell.metadata:
                    raise ValueError(f"cell {cell.id!r} draws a picture and has no metadata['alt']: say what it shows")
                name = f"{PREFIX}{cell.id}.png"
                pictures[name] = b64decode(output.data["image/png"])
                parts.append(f"![{cell.metadata['alt']}]({PICTURES.relative_to(PAGE.parent).as_posix()}/{name})")
            else:
                parts.append(f"```\n{output.data['text/plain']}\n```")
    return "\n\n".join(parts) + "\n", pictures


def main() -> None:
    """Run the notebook; write the page and its pictures, without those of an earlier one."""
    argparse.ArgumentParser(prog="python3 -m benchmarks.tutorial", description=__doc__).parse_args()
    page, pictures = make_page(execute(read_notebook()))
    PICTURES.mkdir(parents=True, exist_ok=True)
    for old in PICTURES.glob(f"{PREFIX}*.png"):
        old.unlink()
    for name, content in pictures.items():
        (PICTURES / name).write_bytes(content)
    PAGE.write_text(page, encoding="utf-8")
    print(f"{PAGE}, {len(pictures)} pictures in {PICTURES}")


if __name__ == "__main__":
    relaunch_in_venv(".venv-tutorial", ("tutorial",), "benchmarks.tutorial")
    main()
