"""The tutorial runs, what its text says is so, and its page is that of the notebook."""

from __future__ import annotations

import re
from base64 import b64encode
from typing import Any

import pytest

from benchmarks.tutorial import PAGE, PICTURES, PREFIX, execute, make_page, read_notebook

nbformat = pytest.importorskip("nbformat", reason="the tutorial is a notebook: pip install '.[tests]'")
pytest.importorskip("nbclient", reason="the tutorial is run by nbclient: pip install '.[tests]'")
pytest.importorskip("ipykernel", reason="the tutorial is run in a Jupyter kernel: pip install '.[tests]'")


def with_checks(source: str) -> Any:
    """The tutorial with one more cell, which looks at what the others have left."""
    notebook = read_notebook()
    notebook.cells.append(nbformat.v4.new_code_cell(source))
    return notebook


def notebook_of(source: str, outputs: list[Any], **metadata: Any) -> Any:
    cell = nbformat.v4.new_code_cell(source, id="cell", outputs=[nbformat.from_dict(output) for output in outputs])
    cell.metadata.update(metadata)
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Title"), cell])


def test_every_cell_runs() -> None:
    """With hardly any training, so that nothing is found: code in the page must not rot."""
    # The first update follows step 1,000
    checks = "assert (model.num_timesteps, sac.num_timesteps) == (1080, 1080) and model._n_updates > 0\n"
    checks += "assert len(trajectories) == 6 and 1 <= found.n_trials <= 10"
    page, pictures = make_page(execute(with_checks(checks), {"STEPS": 1080, "EACH": 1, "EPISODES": 1}))
    assert set(pictures) == {path.name for path in PICTURES.glob(f"{PREFIX}*.png")}
    assert all(content.startswith(b"\x89PNG") for content in pictures.values())
    # All but what was printed is as in the committed page
    assert re.findall(r"^[#!].*", page.partition("assert")[0], re.M) == re.findall(r"^[#!].*", PAGE.read_text("utf-8"), re.M)


@pytest.mark.slow
def test_what_the_text_says_is_so() -> None:
    """How many ways are found differs between machines; that there is another one to go does not."""
    execute(
        with_checks(
            """
assert len(ways) >= 2 and ways <= set(PASSAGES), ways
assert before >= 0.9, before
assert after <= 0.1, after
assert found.n_trials <= 10 and adapted >= 0.9, (found.n_trials, adapted)
assert usual_passage(paths) in set(PASSAGES) - {used}
"""
        )
    )


def test_notebook_is_kept_without_outputs() -> None:
    cells = read_notebook().cells
    assert len({cell.id for cell in cells}) == len(cells)
    for cell in cells:
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None, f"cell {cell.id!r} holds outputs: clear them"


def test_page_is_of_this_notebook() -> None:
    page = PAGE.read_text(encoding="utf-8")
    place = 0
    for cell in read_notebook().cells:
        place = page.find(cell.source, place)
        assert place >= 0, f"docs/tutorial.md lacks cell {cell.id!r} as it is now: python3 -m benchmarks.tutorial"
        place += len(cell.source)
    shown = re.findall(r"\]\(images/([\w-]+\.png)\)", page)
    pictures = list(PICTURES.glob(f"{PREFIX}*.png"))
    assert sorted(shown) == sorted(path.name for path in pictures) != []
    assert all(path.stat().st_size < 200_000 for path in pictures)


def test_page_shows_what_was_printed_and_drawn() -> None:
    picture = b"\x89PNG picture"
    outputs = [
        {"output_type": "stream", "name": "stdout", "text": "printed\n\n"},
        {"output_type": "execute_result", "metadata": {}, "execution_count": 1, "data": {"text/plain": "42"}},
        {
            "output_type": "display_data",
            "metadata": {},
            "data": {"image/png": b64encode(picture).decode(), "text/plain": "<Figure>"},
        },
    ]
    page, pictures = make_page(notebook_of("run()", outputs, alt="A curve"))
    assert page.partition("-->")[2] == (
        "\n\n# Title\n\n```python\nrun()\n```\n\n```\nprinted\n```\n\n```\n42\n```\n\n![A curve](images/tutorial_cell.png)\n"
    )
    assert pictures == {"tutorial_cell.png": picture}


def test_page_with_a_warning_or_a_picture_without_words_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'cell' wrote to stderr.*\n.*careful"):
        make_page(notebook_of("run()", [{"output_type": "stream", "name": "stderr", "text": "careful"}]))
    output = {"output_type": "display_data", "metadata": {}, "data": {"image/png": ""}}
    with pytest.raises(ValueError, match=r"'cell' draws a picture and has no metadata\['alt'\]"):
        make_page(notebook_of("run()", [output]))


def test_unknown_parameter_is_refused() -> None:
    with pytest.raises(ValueError, match="sets 'STEP', which the cell of parameters does not know"):
        execute(read_notebook(), {"STEP": 1})
