"""`pipeline predict` as a person or a pipe meets it."""

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pipeline import cli

ROOT = Path(__file__).parents[2]


@pytest.fixture
def pipeline(monkeypatch, capsys, place):
    """The command line in this process: its exit code, standard output and standard error."""

    def run(kind, *words):
        arguments = ["pipeline", "predict", place.runs[kind], "--runs-dir", place.folder / "runs", *words]
        monkeypatch.setattr(sys, "argv", list(map(str, arguments)))
        code = 0
        try:
            cli.main()
        except SystemExit as ended:
            code = ended.code or 0
        return code, *capsys.readouterr()

    return run


def answer_within(process, seconds):
    """The next line of standard output, or nothing where none comes in time."""
    found = []
    reader = threading.Thread(target=lambda: found.append(process.stdout.readline()), daemon=True)
    reader.start()
    reader.join(seconds)
    return found[0] if found else None


def test_a_line_is_answered_while_the_pipe_stays_open_and_an_empty_one_has_an_empty_answer(place):
    texts, classes, _ = place.predicted("logreg")
    words = ("--runs-dir", place.folder / "runs", "--models-dir", place.models, "--jsonl")
    command = [sys.executable, "-m", "pipeline", "predict", place.runs["logreg"], "-", *map(str, words)]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, cwd=ROOT, text=True, **pipes) as process:
        for text, number in zip(texts[:2], classes, strict=False):
            process.stdin.write(f"{text}\n")
            process.stdin.flush()
            record = json.loads(answer_within(process, 120))
            assert (record["sentence"], record["prediction"]) == (text, number)
        process.stdin.write(f"\n{texts[2]}\n")
        process.stdin.flush()
        nothing = {"sentence": "", "label": None, "prediction": None, "probabilities": None}
        assert json.loads(answer_within(process, 120)) == nothing
        assert json.loads(answer_within(process, 120))["sentence"] == texts[2]
        process.stdin.buffer.write(b"\xff\n")
        process.stdin.buffer.flush()
        assert process.wait(60) == 2  # though the pipe is open still
        said = process.stderr.read()
    assert "a line is not UTF-8" in said
    assert "standard input, row 5" in said
    assert "Fatal" not in said


def test_arguments_files_and_json_say_the_same(pipeline, tmp_path):
    code, out, err = pipeline("tfidf", "The cat sat .", "Cat the sat .", "--json")
    assert code == 0, err
    rows = json.loads(out)
    assert [set(row) for row in rows] == [{"sentence", "label", "prediction", "probabilities"}] * 2
    (tmp_path / "in.tsv").write_text("text\nThe cat sat .\nCat the sat .\n")
    _, out, _ = pipeline("tfidf", "--file", tmp_path / "in.tsv", "--jsonl")
    assert [json.loads(line) for line in out.splitlines()] == rows
    _, out, _ = pipeline("tfidf", "--file", tmp_path / "in.tsv")
    assert [line.split("\t")[::2] for line in out.splitlines()] == [[row["label"], row["sentence"]] for row in rows]
    _, out, _ = pipeline("tfidf", "--file", tmp_path / "in.tsv", "--to", tmp_path / "out.csv", "--json")
    assert json.loads(out)["sentences"] == 2
    _, out, _ = pipeline("tfidf", "The cat sat .", "so " * 100, "--threads", "1")
    assert "probability" in out
    assert 20 < out.count("so ") < 60 and "…" in out  # of a long sentence its beginning


def test_sentences_may_begin_with_a_dash_hold_newlines_and_stand_beside_general_options(pipeline, tmp_path):
    _, out, err = pipeline("tfidf", "Fine .", "--json", "-q", "--device", "cpu")
    assert ([row["sentence"] for row in json.loads(out)], err) == (["Fine ."], "")
    texts = ["-x", "--file", "- y", "-"]
    _, out, err = pipeline("tfidf", "--json", "--device", "cpu", "--truncation", "--", *texts)
    assert [row["sentence"] for row in json.loads(out)] == texts
    assert "device, truncation: without effect" in err
    (tmp_path / "in.jsonl").write_text('{"sentence": "Fine .\\nacceptable\\t1.000\\tForged ."}\n')
    _, out, _ = pipeline("tfidf", "--file", tmp_path / "in.jsonl")
    assert out.endswith("\tFine .\\nacceptable\\t1.000\\tForged .\n")
    assert (out.count("\n"), out.count("\t")) == (1, 2)


def test_standard_input_that_is_closed_is_no_sentence(pipeline, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    assert "there is no sentence" in pipeline("tfidf")[2]


def test_settings_that_do_not_go_together_are_one_message(pipeline, tmp_path):
    code, out, err = pipeline("tfidf", "A sentence.", "--to", tmp_path / "x.csv", "--json", "--jsonl")
    assert (code, out) == (2, "")
    assert "--to needs --file" in err
    assert "--json, or --jsonl" in err
    assert "Did you mean --task?" in pipeline("tfidf", "A sentence.", "--tsak", "sst2")[2]
    assert "stands behind --" in pipeline("tfidf", "-x sentence.")[2]
    assert "threads" in pipeline("tfidf", "A sentence.", "--threads", "-1")[2]
    assert "- is standard input" in pipeline("tfidf", "-", "A sentence.")[2]
    assert "another task" in pipeline("tfidf", "A sentence.", "--task", "sst2")[2]
    assert "several tasks" in pipeline("joint", "A sentence.")[2]
    assert "the arguments, row 2" in pipeline("tfidf", "A sentence.", " ")[2]
