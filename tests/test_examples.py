"""The notebook that comes with the project runs from top to bottom, in a kernel of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests import forked

ROOT = Path(__file__).parents[1]
EXECUTE = """
import sys, nbformat
from nbclient import NotebookClient

notebook = nbformat.read(sys.argv[1], 4)
nbformat.validate(notebook)
NotebookClient(notebook, timeout=300, resources={"metadata": {"path": sys.argv[2]}}).execute()
nbformat.write(notebook, sys.argv[3])
"""


def outputs(notebook):
    """Of each cell with code, what it printed or gave."""
    cells = [cell for cell in json.loads(notebook.read_text("utf-8"))["cells"] if cell["cell_type"] == "code"]
    return [
        "".join("".join(each.get("text") or each.get("data", {}).get("text/plain", "")) for each in cell["outputs"])
        for cell in cells
    ]


def test_the_notebook_of_cached_features_runs(tmp_path, tiny_backbone, small_glue):
    glue = ("--glue-dir", str(small_glue), "--data", "glue")
    features = ("--backbone", str(tiny_backbone))
    for words in (("extract", *glue, *features), ("heads", *features, "--heads", "logreg")):
        done = forked.pipeline(words, tmp_path, {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"})
        assert done.returncode == 0, done.stderr
    told = ROOT / "data" / "examples" / "cached_features.ipynb"
    here = tmp_path / "cached_features.ipynb"
    here.write_text(told.read_text("utf-8").replace('source=\\"sample\\"', 'source=\\"glue\\"'), "utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", EXECUTE, here, tmp_path, tmp_path / "ran.ipynb"],
        env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ran, shown = outputs(tmp_path / "ran.ipynb"), outputs(told)
    assert len(ran) == len(shown) > 5
    assert [bool(text) for text in ran] == [bool(text) for text in shown], "what is shown is what running it shows"
    assert "(60, 64)" in ran[2]
    assert "logreg" in ran[4]
