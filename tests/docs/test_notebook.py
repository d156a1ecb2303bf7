"""The notebook: its stored outputs are those of one run from top to bottom, and it runs again."""

import json
import re

import pytest

from helpers.documents import ROOT


NOTEBOOK = ROOT / "docs" / "notebooks" / "demo.ipynb"


@pytest.fixture
def cells() -> list[dict]:
    return json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]


def outputs_of(cells: list[dict], kind: str) -> list:
    outputs = [output.get("data", {}) for cell in cells for output in cell.get("outputs", [])]
    return [data[kind] for data in outputs if kind in data]


def test_stored_outputs_come_from_one_run(cells):
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert all(output["output_type"] != "error" for cell in code for output in cell["outputs"])
    assert len(outputs_of(cells, "image/png")) >= 8
    assert any("balanced mae" in "".join(table).lower() for table in outputs_of(cells, "text/markdown"))


def test_it_says_what_its_data_are(cells):
    first = "".join(cells[0]["source"])
    assert "SYNTHETIC" in first and "under-trained" in first and "Not a medical device" in first
    assert all("SYNTHETIC" in "".join(table) for table in outputs_of(cells, "text/markdown"))


def test_outputs_tell_nothing_of_the_machine(cells):
    for cell in cells:
        for output in cell.get("outputs", []):
            output.get("data", {}).pop("image/png", None)
            assert not re.search(r"(?<![\w.])/(home|root|tmp|work|Users|opt)/", json.dumps(output))


@pytest.mark.slow
def test_notebook_runs(tmp_path):
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    stored, pictures = outputs_of(notebook.cells, "text/markdown"), len(outputs_of(notebook.cells, "image/png"))
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    nbformat.validate(notebook)
    repeated = outputs_of(notebook.cells, "text/markdown")
    # Another processor sums in another order, so the numbers, and their widths, may differ, but not their meaning.
    headers = [[table.split("\n|")[1].split() for table in tables] for tables in (stored, repeated)]
    assert headers[0] == headers[1]
    assert len(outputs_of(notebook.cells, "image/png")) == pictures
