"""What tests of stage one share."""


def files_of(folder):
    """Every file but the log of passes and the machine's own notes, by name, with its bytes."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("passes.jsonl", ".sound.jsonl")
    }
