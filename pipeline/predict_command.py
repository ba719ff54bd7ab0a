"""`pipeline predict`: what was trained, on new sentences. A room is imported inside the command that needs it."""

import json as json_lines
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from pipeline.config import LedgerConfig
from pipeline.errors import ConfigError, DataError, shortened
from pipeline.predict_config import PredictConfig
from pipeline.terminal import LISTS, Flat, Json, columns, print_result, printable

if TYPE_CHECKING:
    from pipeline.predicting import Predictor

STDIN = "standard input"
READ_BYTES = 65536

predict_app = App(name="predict", usage="Usage: pipeline predict RUN [SENTENCES...] [OPTIONS]", default_parameter=LISTS)
MOST_SHOWN = 160
"""Characters of a sentence in a table."""


@predict_app.default
def predict(
    run: str,
    /,
    *sentences: str,
    stdin: Annotated[bool, Parameter(name="-", negative="")] = False,
    file: Path | None = None,
    to: Path | None = None,
    text_column: str | None = None,
    prefix: str = "",
    force: bool = False,
    task: str | None = None,
    jsonl: bool = False,
    threads: int = 0,
    places: Annotated[PredictConfig, Flat] = PredictConfig(),
    runs: Annotated[LedgerConfig, Flat] = LedgerConfig(),
    json: Json = False,
) -> None:
    """Classify sentences, the lines of standard input, or a file's, with what a run trained: a head or an adapter.

    The features of a head on cached features are computed by stage one's own code, with the backbone that the run
    names, which is checked against the run's record. Lines of standard input are answered as they come, one line each:
    label, its probability and the sentence, with tabs between; an empty line has an empty answer.

    Example: `pipeline predict RUN "The cat sat on the mat."`

    Args:
        run: the run's name, or any part of it.
        sentences: what to classify; without any each line of standard input is one. Behind -- they may
            begin with a dash.
        stdin: read standard input, as without any sentence.
        file: a .csv, .tsv, .jsonl or .parquet file of sentences.
        to: where the file's columns go, and beside them prediction (the class's number), label and
            probability_LABEL of each label: a .csv, .tsv, .jsonl or .parquet file.
        text_column: the column of the sentences in the file; by default sentence or text.
        prefix: put before the names of the new columns.
        force: overwrite a file that is there, and columns of the new ones' names.
        task: one of the run's tasks; needed only where there are several.
        jsonl: print one JSON object a line, each as soon as it is there.
        threads: CPU threads; 0 is all cores.
    """
    from pipeline.predicting.files import SentenceFile, check_target, predict_file
    from pipeline.predicting.predictor import folder_of, load_predictor, only_task
    from pipeline.results.ledger import read_run
    from pipeline.threads import limited_threads

    if threads < 0:
        raise ConfigError("this is no number of threads", where="threads", expected="at least 0", found=threads)
    folder = folder_of(run, runs.runs_dir)
    task = only_task(read_run(folder), task)
    from_stdin = file is None and not sentences
    if from_stdin and sys.stdin is None:
        raise _no_sentence()
    _check_settings(sentences, stdin, file, to, text_column, prefix, force, json, jsonl)
    if file is not None and to is not None:
        check_target(to, file, force=force)
    of_file = None if file is None else SentenceFile.check(file, text_column, to)
    given = [] if from_stdin or of_file else _checked(sentences)
    with limited_threads(threads):
        predictor = load_predictor(folder, task=task, **asdict(places))
        if of_file is not None and to is not None:
            result = predict_file(predictor, of_file, to, task=task, prefix=prefix, force=force)
            print_result(result, json, lambda result: columns([_counted(result)], tuple(_counted(result))))
        elif given:
            _print(iter([list(predictor.answer(given).records(tuple(given)))]), json, jsonl, as_table=True)
        elif of_file is not None:
            answers = (
                records
                for _, part in of_file.sheets()
                for records in predictor.until_fault(part.texts, part.lines, part.origin)
            )
            _print(answers, json, jsonl)
        else:
            _print(_of_stdin(predictor), json, jsonl)


def _check_settings(
    sentences: tuple[str, ...],
    stdin: bool,
    file: Path | None,
    to: Path | None,
    text_column: str | None,
    prefix: str,
    force: bool,
    json: bool,
    jsonl: bool,
) -> None:
    """Raise one error for settings that do not go together."""
    of_file = {"--text-column": text_column is not None}
    of_target = {"--prefix": bool(prefix), "--force": force}
    wrong = [
        *([f"- is {STDIN}: that, or sentences as arguments, or --file"] if stdin and (sentences or file) else []),
        *(["sentences as arguments, or --file, not both"] if sentences and file is not None else []),
        *(["--to needs --file"] if to is not None and file is None else []),
        *(f"{name} needs --file" for name, given in of_file.items() if given and file is None),
        *(f"{name} needs --to" for name, given in of_target.items() if given and to is None),
        *(["--json, or --jsonl, not both"] if json and jsonl else []),
        *(["--jsonl prints, and --to FILE.jsonl writes: not both"] if jsonl and to is not None else []),
    ]
    if wrong:
        raise ConfigError("these settings do not go together:\n" + "\n".join(f"  - {each}" for each in wrong))


def _checked(sentences: tuple[str, ...]) -> list[str]:
    from pipeline.predicting.sentences import Sentences

    return list(Sentences.of(sentences, origin="the arguments").texts)


def _of_stdin(predictor: "Predictor") -> Iterator[list[dict[str, Any]]]:
    any_line = False
    for records in predictor.stream_together(_lines_of_stdin(), origin=STDIN, blank_too=True):
        any_line = True
        yield records
    if not any_line:
        raise _no_sentence()


def _no_sentence() -> ConfigError:
    return ConfigError("there is no sentence", where="sentences", expected=f"arguments, --file, or lines on {STDIN}")


def _lines_of_stdin() -> Iterator[str]:
    """Each line as soon as it is whole.

    Read from the file descriptor: Python's own buffer would be locked by the thread that waits here, and a command that
    ends meanwhile would crash on it.
    """
    left, line = b"", 0
    while content := os.read(sys.stdin.fileno(), READ_BYTES):
        *whole, left = (left + content).split(b"\n")
        for each in whole:
            line += 1
            yield _decoded(each, line)
    if left:
        yield _decoded(left, line + 1)


def _decoded(content: bytes, line: int) -> str:
    try:
        return content.decode("utf-8-sig" if line == 1 else "utf-8").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise DataError("a line is not UTF-8", where=f"{STDIN}, row {line}", found=error.reason) from error


def _print(answers: Iterator[list[dict[str, Any]]], as_json: bool, jsonl: bool, *, as_table: bool = False) -> None:
    """Print what is answered: as one JSON list, as JSON lines, as a table, or as lines for people and pipes."""
    if as_json or (as_table and not jsonl):
        rows = [record for records in answers for record in records]
        print_result(rows, as_json, lambda rows: columns(map(_line, rows), ("sentence", "label", "probability")))
        return
    for records in answers:
        for record in records:
            print(json_lines.dumps(record, ensure_ascii=False) if jsonl else "\t".join(_cells(record)))
        sys.stdout.flush()


def _shown(record: dict[str, Any]) -> dict[str, Any]:
    if record["label"] is None:  # of an empty line
        return {**record, "label": "", "probability": ""}
    return {**record, "probability": f"{record['probabilities'][record['label']]:.3f}"}


def _line(record: dict[str, Any]) -> dict[str, Any]:
    """An answer as a line of a table: of a long sentence its beginning."""
    return _shown({**record, "sentence": shortened(record["sentence"], MOST_SHOWN)})


def _cells(record: dict[str, Any]) -> tuple[str, ...]:
    shown = _shown(record)
    cells = (shown["label"], shown["probability"], shown["sentence"])
    return tuple(printable(cell).replace("\n", "\\n") for cell in cells)  # no text makes a line or a cell of its own


def _counted(result: dict[str, Any]) -> dict[str, Any]:
    """A file's line of the table: what was predicted how often, in words."""
    shown = {name: result[name] for name in ("file", "task", "sentences", "seconds")}
    shown["sentences/s"] = result["sentences_per_second"]
    return shown | {"predicted": ", ".join(f"{label} {count:,}" for label, count in result["labels"].items())}
