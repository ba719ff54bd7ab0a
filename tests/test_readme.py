"""Each command and each Python example of the README runs, on few rows and a tiny backbone."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import forked

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
COMMANDS = [line[2:] for block in re.findall(r"```console\n(.*?)```", README, re.S) for line in block.splitlines()]
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.S)
ACTIVATES = ("source .venv/bin/activate",)  # the test runs the same interpreter by its path
FINGERPRINTS = list(dict.fromkeys(word for line in COMMANDS for word in re.findall(r" ([0-9a-f]{12})\b", line)))
ADAPTERS = set(re.findall(r"--adapter ([0-9a-f]{8})\b", "\n".join(COMMANDS)))
STAGED = ("extract", "heads", "sweep", "joint", "baselines", "adapt")  # what is asked for a backbone's features
SHORTER = {"joint": ("--max-steps", "60"), "lora": ("--max-rows", "80"), "prompt": ("--max-rows", "80")}
AS_INSTALLED = ("data", "verify")  # targets that start the command that was installed: others need seconds of imports
FETCHES = ("make data",)  # what needs the Hub: here it must say so


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_backbone, sample_dir, save_adapter):
    """A working folder with few rows of everything that the README's commands name."""
    folder = tmp_path_factory.mktemp("readme")
    shutil.copytree(sample_dir, folder / "data" / "sample")
    for task, header in (("CoLA", 0), ("SST-2", 1)):
        (folder / "glue" / task).mkdir(parents=True)
        for file, rows in (("train.tsv", 80), ("dev.tsv", 30), ("test.tsv", 10)):
            lines = (sample_dir / task / file).read_text("utf-8").split("\n")
            keep = rows + (1 if file == "test.tsv" else header)
            (folder / "glue" / task / file).write_text("\n".join(lines[:keep]) + "\n", "utf-8")
    (folder / "topic.toml").write_text(re.search(r"```toml\n(.*?)```", README, re.S)[1])
    (folder / "reviews.txt").write_text("The cat sat.\nCat the sat.\n")
    save_adapter(folder / "my-lora")
    (folder / "my-data").mkdir()
    for split in ("train", "validation"):
        rows = [f"The {'cat' if n % 2 else 'soup'} of day {n},{'animals' if n % 2 else 'food'}" for n in range(40)]
        (folder / "my-data" / f"{split}.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def served():
    """What is called instead of `pipeline` by make: the same commands, without seconds of imports in each."""
    with forked.served() as called:
        yield called


def run(words, folder, **environment):
    """Run a command as a person would, not as the make that may have started the tests."""
    settings = {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
    if words[0] == "pipeline":
        given = ""
        if "<" in words:
            *words, _, file = words
            given = (folder / file).read_text("utf-8")
        return forked.pipeline(words[1:], folder, settings, given=given)
    own = {
        name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "ARGS")
    }
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=600, env={**own, **settings})


def small(command, folder, backbone):
    """The command as the README has it, with the tiny backbone and this folder's data in place of the real ones."""
    words = shlex.split(command)
    if words[0] == "make":
        data = {"GLUE_DIR": folder / "glue", "BACKBONE": backbone, "CACHE_DIR": folder / "data/cache"}
        data |= {"RUNS_DIR": folder / "data/runs"}
        if words[1] in ("push", "pull"):
            data |= {"REMOTE": (folder / "remote").as_uri()}
        if words[1] == "test":
            data |= {"ARGS": "--collect-only -q tests/test_views.py"}
        if words[1] in ("lora", "prompt"):
            words[-1] += f" {shlex.join(SHORTER[words[1]])}"
        return [*words, *(f"{name}={value}" for name, value in data.items())]
    assert words[0] == "pipeline"
    flags = ["--backbone", str(backbone)] if words[1] in STAGED else []
    if words[1] == "backbones":
        words = [of_tiny(word, backbone) for word in words]
    if words[1] in ("extract", "adapt", "predict", "baselines", "backbones"):
        flags += ["--models-dir", str(folder / "models")]
    flags += SHORTER.get(words[1], ()) if words[1] != "adapt" else SHORTER[words[2]]
    if "--top-layers" in words:
        words[words.index("--top-layers") + 1] = "1"
    tiny = {
        "10": "1",
        "16": "1",
        "20": "2",
        "22": "1",
        "RUN": newest_run(folder, "*-cola*-prompt-*"),
        "RUN_A": newest_run(folder, "*-cola-lda-*"),
        "RUN_B": newest_run(folder, "*-cola-centroid-*"),
        "HEAD_RUN": newest_run(folder, "*-cola-linear-*"),
        "L20-mean": "L2-mean",
        "L20-tokens": "L2-tokens",
        "L10-mean+L20-mean": "L1-mean+L2-mean",
    }
    tiny |= dict(zip(FINGERPRINTS, fingerprints_in(folder), strict=False))
    tiny |= {digest: path.name.split("-lora-")[1][:8] for path in folder.rglob("*-lora-*") for digest in ADAPTERS}
    end = words.index("<") if "<" in words else len(words)
    return ["pipeline", *(tiny.get(word, word) for word in words[1:end]), *flags, *words[end:]]


def of_tiny(word, backbone):
    """Contenders of the embedded backbone as such of the tiny one."""
    return word.replace("smollm2-135m", str(backbone)).replace("@10", "@1").replace("@20", "@2")


def newest_run(folder, pattern):
    """By which name the README's commands may call a run here."""
    runs = sorted(path.name for path in (folder / "data" / "runs").glob(pattern))
    return runs[-1] if runs else "RUN"


def fingerprints_in(folder):
    """By which names the README's commands may call feature sets here: of validation views that no run uses."""
    names = [path.name for path in sorted((folder / "data" / "cache" / "cola" / "validation").glob("*-L0-mean-*"))]
    others = [path.name for path in sorted((folder / "data" / "cache" / "cola" / "train").glob("*-nf4-L2-mean-*"))]
    return [name[-12:] for name in (*names, *others)]


def test_commands_stand_only_where_they_are_run():
    fences = re.findall(r"^```(\w+)$", README, re.M)
    assert fences and set(fences) <= {"console", "python", "toml", "text"}
    assert all(
        line.startswith("$ ")
        for block in re.findall(r"```console\n(.*?)```", README, re.S)
        for line in block.splitlines()
    )


@pytest.mark.slow
def test_every_command_of_the_readme_runs_in_its_order(place, tiny_backbone, served):
    assert len(COMMANDS) >= 12
    for command in COMMANDS:
        if command in ACTIVATES:
            continue
        words = small(command, place, tiny_backbone)
        if words[:2] == ["make", "pull"]:  # from now on this is the CPU machine, and the cache lies elsewhere
            (place / "data" / "cache").rename(place / "remote")
        if words[0] == "make" and words[1] not in AS_INSTALLED:
            words = [*words, f"PIPELINE={served}"]
        if command in FETCHES:
            words = [*words, f"GLUE_DIR={place / 'not-there-yet'}"]
        result = run(words, ROOT if words[0] == "make" else place)
        if command in FETCHES:
            assert result.returncode == 2
            assert "cannot be had from the Hub" in result.stderr
        else:
            assert result.returncode == 0, (command, result.stdout, result.stderr)


@pytest.mark.slow
def test_every_python_example_of_the_readme_runs(place, tiny_backbone):
    for words in (
        ("extract", "--data", "sample", "--tasks", "cola"),
        ("heads", "--data", "sample", "--tasks", "cola", "--heads", "logreg"),
    ):
        assert run(small(f"pipeline {shlex.join(words)}", place, tiny_backbone), place).returncode == 0
    assert SNIPPETS
    for snippet in SNIPPETS:
        result = run([sys.executable, "-c", snippet], place)
        assert result.returncode == 0, result.stderr


def test_every_make_target_of_the_readme_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    named = set(re.findall(r"`make ([a-z-]+)", README)) | {
        word
        for command in COMMANDS
        if command.startswith("make ")
        for word in shlex.split(command)[1:]
        if "=" not in word
    }
    assert named <= targets, named - targets
    help_text = run(["make"], ROOT).stdout
    assert all(f"make {target}" in help_text for target in named)


def test_the_files_that_the_readme_links_to_exist():
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert links
    assert all((ROOT / link).exists() for link in links)


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("target", ["push", "pull"])
def test_a_place_that_is_not_named_is_said_before_anything_is_installed(target, tmp_path):
    shutil.copy(ROOT / "Makefile", tmp_path)
    result = run(["make", target], tmp_path)
    assert result.returncode == 2
    assert f"make {target} REMOTE=" in result.stderr
    assert not (tmp_path / ".venv").exists()


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_a_missing_python_is_named_with_its_remedy(tmp_path):
    for name in ("Makefile", "pyproject.toml", ".constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    result = run(["make", "setup", "PYTHON="], tmp_path)
    assert result.returncode == 2
    assert "Python 3.11 or newer is not here" in result.stderr
    assert "apt-get install python3" in result.stderr
