"""A place in a repository of the Hugging Face Hub: what is put there at once becomes one commit."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.cache.remote.place import Advance
from pipeline.cache.remote.store import Store
from pipeline.cache.remote.trouble import telling


class Hub(Store):
    """A folder of a Hub repository, such as `hf://datasets/org/name` or `hf://datasets/org/name@revision/folder`.

    A feature set is one commit, so that it appears there whole; bytes that the Hub has already are not sent again.
    """

    def put(self, files: Sequence[tuple[Path, str]], advance: Advance) -> None:
        from huggingface_hub import CommitOperationAdd

        self._commit(
            [CommitOperationAdd(self._in_repository(name), path) for path, name in files],
            f"Push {files[-1][1].rpartition('/')[0]}",
        )
        for path, _ in files:
            advance(path.stat().st_size)

    def remove(self, names: Sequence[str]) -> None:
        from huggingface_hub import CommitOperationDelete

        if names:
            self._commit(
                [CommitOperationDelete(self._in_repository(name)) for name in names],
                f"Replace {names[0].rpartition('/')[0]}",
            )

    def _in_repository(self, name: str) -> str:
        return str(self.file_system.resolve_path(self._at(name)).path_in_repo)

    def _commit(self, operations: list[Any], message: str) -> None:
        with telling(self.shown, message):
            place = self.file_system.resolve_path(self.root)
            self.file_system._api.create_commit(
                repo_id=place.repo_id,
                repo_type=place.repo_type,
                revision=place.revision,
                operations=operations,
                commit_message=message,
            )
