"""A GLUE folder, read and written: `CoLA/train.tsv`, `SST-2/dev.tsv` and so on, quoting off."""

from pathlib import Path

from pipeline.errors import DataError
from pipeline.tasks.examples import Examples, parse_examples
from pipeline.tasks.spec import GlueLayout, Split, TaskSpec
from pipeline.tasks.tables import read_tsv

FILES: dict[Split, str] = {"train": "train.tsv", "validation": "dev.tsv", "test": "test.tsv"}
TEST_COLUMNS = ("index", "sentence")


def glue_file(folder: Path, layout: GlueLayout, split: Split) -> Path:
    """Where a split of a task lies in the GLUE folder `folder`."""
    return folder / layout.folder / FILES[split]


def read_glue(folder: Path, task: TaskSpec, layout: GlueLayout, split: Split, name: str) -> Examples:
    """Read one split of one task from a GLUE folder. GLUE's test labels are hidden: that split is unlabelled.

    Args:
        name: what to call this source to people: `glue` or `sample`.

    Raises:
        DataError: the file is missing or malformed.
    """
    path = glue_file(folder, layout, split)
    labelled = split != "test"
    columns = layout.columns if labelled else TEST_COLUMNS
    has_header = layout.header or not labelled
    table = read_tsv(path, None if has_header else columns)
    if has_header and set(table.columns) != set(columns):
        raise DataError(
            "the file has the wrong columns",
            where=path,
            expected=", ".join(columns),
            found=", ".join(table.columns),
            remedy=f"this is GLUE's layout of {layout.folder}; other tables are read with DATA=<folder>",
        )
    sources = table.columns.get("source", [])
    return parse_examples(
        task,
        split,
        texts=table.column("sentence"),
        labels=table.column("label") if labelled else None,
        idx=None
        if labelled
        else [_index(value, path, line) for value, line in zip(table.column("index"), table.lines, strict=True)],
        sources=[str(source) for source in sources] if any(sources) else None,
        lines=table.lines,
        path=path,
        origin=f"{name}: {path}",
    )


def _index(value: object, path: Path, line: int) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit():
        return int(value)
    raise DataError("an index is not a whole number", where=f"{path}, row {line}", found=repr(value))


def write_glue(folder: Path, examples: Examples, layout: GlueLayout) -> Path:
    """Write one split as a GLUE file and return its path.

    Raises:
        DataError: a sentence holds a tab or a newline, which GLUE's layout cannot say.
    """
    path = glue_file(folder, layout, examples.split)
    columns = layout.columns if examples.labels is not None else TEST_COLUMNS
    has_header = layout.header or examples.labels is None
    lines = ["\t".join(columns)] if has_header else []
    for row, text in enumerate(examples.texts):
        if "\t" in text or "\n" in text:
            raise DataError("GLUE's layout cannot hold this sentence", where=f"{path}, row {row}", found=repr(text))
        value = {
            "sentence": text,
            "index": str(examples.idx[row]),
            "label": str(examples.labels[row]) if examples.labels is not None else "",
            "source": examples.sources[row] if examples.sources is not None else "",
            "mark": "*" if examples.labels is not None and examples.labels[row] == 0 else "",
        }
        lines.append("\t".join(value[column] for column in columns))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", "utf-8", newline="\n")
    return path
