"""Each command shows an example that is one; what is quiet, completed and imported from the top."""

import contextlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import cli, progress

ROOT = Path(__file__).parents[1]
EXAMPLE = re.compile(r"Example: (pipeline .+)")


def commands(app, words=("pipeline",)):
    """Every command and group of an app, with the words that call it."""
    yield words, app
    for name in app:
        if not name.startswith("-"):
            yield from commands(app[name], (*words, name))


def run(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["pipeline", *words])
    with contextlib.suppress(SystemExit):
        cli.main()


COMMANDS = [each for each in commands(cli.app) if len(each[0]) > 1]


def test_the_front_page_says_of_each_command_what_its_own_help_begins_with():
    first = {name: " ".join(cli.app[name].help.split("\n\n")[0].split()) for name in cli.COMMANDS}
    assert first == {name: summary for name, (_, summary) in cli.COMMANDS.items()}


def test_the_front_page_imports_no_command(monkeypatch, capsys):
    code = """
import sys
sys.argv = ["pipeline", "--help"]
from pipeline import cli
try:
    cli.main()
finally:
    print(*sorted(name for name in sys.modules if name.startswith(("pipeline.", "rich.markdown"))))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    *page, imported = done.stdout.splitlines()
    assert set(imported.split()) == {
        f"pipeline.{name}" for name in ("before_torch", "cli", "errors", "terminal", "wrapping")
    }
    for name in cli.COMMANDS:
        assert any(line.startswith(f"│ {name} ") for line in page)


def parses(line):
    """Whether a command line is one: the command exists, has these options, and they have such values."""
    words = [word for word in shlex.split(line) if word not in ("--quiet", "-q")]
    assert words[0] == "pipeline"
    cli.app.config = []
    cli.app.parse_args(words[1:], exit_on_error=False, print_error=False)


@pytest.mark.parametrize(("words", "app"), COMMANDS, ids=[" ".join(words[1:]) for words, _ in COMMANDS])
def test_every_command_has_an_example_in_its_help(words, app, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "400")
    run(monkeypatch, *words[1:], "--help")
    (example, *others) = EXAMPLE.findall(capsys.readouterr().out)
    assert not others
    example = example.strip().split(", then ")[0]
    assert example.split()[: len(words)] == list(words), "an example is of the command that it stands at"
    parses(example)


def test_an_example_that_is_none_would_be_seen():
    for line in ("pipeline heads --no-such-option", "pipeline nothing", "pipeline extract --quantization nf3"):
        with pytest.raises(Exception, match=r"no-such-option|nothing|nf3"):
            parses(line)


def test_every_command_line_in_the_text_of_the_readme_is_one():
    text = re.sub(r"```.*?```", "", (ROOT / "README.md").read_text("utf-8"), flags=re.S)
    lines = [line for line in re.findall(r"`(pipeline [^`]+)`", text) if "…" not in line]
    assert len(lines) > 10
    names = {" ".join(words) for words, _ in COMMANDS}
    for line in lines:
        if line not in names:  # as in "runs of `pipeline sweep`"
            parses(line)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script_knows_commands_and_options(capsys, monkeypatch, shell):
    run(monkeypatch, "completion", shell)
    script = capsys.readouterr().out
    assert all(words[-1] in script for words, _ in COMMANDS)
    assert "side-by-side" in script


def test_bash_completes_a_command(tmp_path):
    script = tmp_path / "complete.bash"
    script.write_text(cli.app.generate_completion(shell="bash", prog_name="pipeline"))
    asks = "COMP_WORDS=(pipeline swe); COMP_CWORD=1; _pipeline 2> /dev/null; echo ${COMPREPLY[@]}"
    found = subprocess.run(["bash", "-c", f"source {script}; {asks}"], capture_output=True, text=True, timeout=60)
    assert found.stdout.split() == ["sweep"]


def test_quiet_leaves_results_warnings_and_errors(capsys, monkeypatch, tmp_path, small_glue):
    monkeypatch.chdir(tmp_path)
    words = ["data", "--data", "glue", "--glue-dir", str(small_glue)]
    said = {}
    for name, more in (("aloud", []), ("quiet", ["--quiet"])):
        run(monkeypatch, *more, *words)
        said[name] = capsys.readouterr()
    assert said["quiet"].out == said["aloud"].out != ""
    with progress.be_quiet():
        progress.say("going on")
        progress.say("warning: this matters")
    progress.say("aloud again")
    assert capsys.readouterr().err == "warning: this matters\naloud again\n"
    monkeypatch.setattr(sys, "argv", ["pipeline", "-q", "heads", "--heads", "nothing"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    assert "no such head" in capsys.readouterr().err


def test_what_people_need_is_imported_from_the_top_and_not_before():
    code = """
import sys, pipeline
assert "h5py" not in sys.modules and "torch" not in sys.modules
from pipeline import FeatureCache, load_head
assert FeatureCache.__module__ == "pipeline.cache.feature_cache"
assert "h5py" in sys.modules and "transformers" not in sys.modules
from pipeline import *
assert set(pipeline.__all__) <= set(globals()) and load_predictor.__module__ == "pipeline.predicting.predictor"
try:
    from pipeline import FeatureCash
except ImportError as error:
    assert "FeatureCash" in str(error)
else:
    raise SystemExit("a name that is not there was imported")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
