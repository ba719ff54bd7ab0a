"""What a folder of features holds, to compare two of them."""


def files_of(folder):
    """Every file that is not the log of passes, by name, with its bytes."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "passes.jsonl"
    }
