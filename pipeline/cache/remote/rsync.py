"""A place that the program rsync reaches: `user@host:folder` through ssh, or `rsync://host/module/folder`."""

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pipeline.cache.remote.place import BLOCK_BYTES, SMALL_BYTES, Advance, Place
from pipeline.cache.remote.trouble import shown_url
from pipeline.digests import sha256_of_file
from pipeline.errors import TransferError

SSH_TARGET = re.compile(r"(?:(?P<user>[^@/:\s]+)@)?(?P<host>\[[0-9a-fA-F:.]+\]|[^/:\s@\[\]]+):(?!//)(?P<path>.*)", re.S)
URL = re.compile(r"rsync://(?:(?P<user>[^@/\s]+)@)?(?P<host>[^/\s@]+)/(?P<path>.+)", re.S)
ENTRY = re.compile(r"(?P<kind>[-d])\S*\s+(?P<size>[\d,.]+) \S+ \S+ (?P<name>.+)")
PARTIAL_DIR = ".rsync-partial"
UNTIL_WHOLE = ("--checksum", "--no-whole-file", f"--partial-dir={PARTIAL_DIR}")
"""Never trust a time; go on inside a half-sent file; send nothing of one whose bytes are there."""
NOT_THERE = re.compile(r"No such file or directory|Unknown module|change_dir.*failed")
KINDS = (
    (re.compile(r"Host key verification failed", re.I), "the host's key is not known, so this may be another host"),
    (re.compile(r"permission denied|auth failed|access denied|read only", re.I), "this place denies access"),
    (re.compile(r"no space left|quota exceeded", re.I), "the disk is full"),
    (re.compile(r"could not resolve|name or service|refused|timed out|unreachable|no route", re.I),
     "this place cannot be reached"),
    (NOT_THERE, "there is no such place"),
    (re.compile(r"rsync: (command )?not found|rsync: not found", re.I), "rsync is not installed there"),
)  # fmt: skip


def is_rsync(remote: str) -> bool:
    """Whether `remote` is a target of rsync: as rsync has it, a colon before the first slash, or its own URL."""
    return remote.startswith("rsync://") or ("://" not in remote and SSH_TARGET.fullmatch(remote) is not None)


class Rsync(Place):
    """A folder of feature sets that rsync reaches. ssh's own settings hold (~/.ssh/config: keys, ports).

    rsync itself writes under a temporary name and renames, checks what it copied, and goes on inside half-sent files.

    Args:
        target: `[user@]host:folder` or `rsync://[user@]host/module[/folder]`.
    """

    def __init__(self, target: str) -> None:
        self.shown = shown_url(target)
        match = URL.fullmatch(target) or SSH_TARGET.fullmatch(target)
        # ssh would take a host or user that begins with a dash for one of its options, such as a command to run.
        if match is None or match["host"].startswith("-") or (match["user"] or "").startswith("-"):
            raise TransferError(
                "this is no target of rsync",
                where=self.shown,
                expected="[user@]host:folder, or rsync://[user@]host/module/folder",
            )
        if shutil.which("rsync") is None:
            raise TransferError(
                "rsync is not installed", where=self.shown, remedy="install it (Debian: apt-get install rsync)"
            )
        path = match["path"].rstrip("/") or ("/" if match["path"] else ".")  # `host:` is the home folder, not the root
        self.brought = Path(os.devnull)
        self.target = target[: match.start("path")] + path

    def folders(self, path: str) -> list[str]:
        return [name for name, (kind, _) in self._entries(path, must_exist=not path).items() if kind == "d"]

    def sizes(self, folder: str) -> dict[str, int]:
        entries = self._entries(folder, must_exist=False)
        return {name: size for name, (kind, size) in entries.items() if kind == "-"}

    def _entries(self, path: str, must_exist: bool) -> dict[str, tuple[str, int]]:
        done = self._run(["--list-only", "--", f"{self._at(path)}/"], check=False)
        if done.returncode != 0:
            if not must_exist and NOT_THERE.search(done.stderr):
                return {}
            raise self._failed(done, f"listing {path or 'it'}")
        entries = (ENTRY.fullmatch(line) for line in done.stdout.splitlines())
        return {e["name"]: (e["kind"], int(re.sub(r"[,.]", "", e["size"]))) for e in entries if e is not None}

    def read(self, name: str, most_bytes: int) -> Iterator[bytes]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "file"
            self._fetch(name, path, most_bytes)
            with path.open("rb") as file:
                while block := file.read(BLOCK_BYTES):
                    yield block

    @contextlib.contextmanager
    def bringing(self, files: Sequence[tuple[str, int]], beside: Path, advance: Advance) -> Iterator[None]:
        """As `Place.bringing`: one run of rsync; what a killed one brought lies where the next one looks."""
        self.brought = beside / PARTIAL_DIR
        if files:
            words = [*UNTIL_WHOLE, f"--max-size={max(size for _, size in files)}", "--out-format=%l"]
            words += ["--files-from=-", "--", f"{self.target}/", f"{self.brought}/"]
            self._run(words, names=[name for name, _ in files], on_line=_count(advance))
        yield
        shutil.rmtree(self.brought, ignore_errors=True)

    def fetch(self, name: str, path: Path, size_bytes: int, advance: Advance) -> str:
        brought = self.brought / name
        if brought.is_file() and not brought.is_symlink():
            brought.replace(path)
        else:
            self._fetch(name, path, size_bytes)
            advance(path.stat().st_size)
        return sha256_of_file(path)

    def _fetch(self, name: str, path: Path, most_bytes: int) -> None:
        self._run([f"--max-size={most_bytes}", "--", self._at(name), str(path)])
        if not path.is_file() or path.is_symlink():
            raise TransferError("a file is not there, or longer than it may be", where=f"{self.shown}, {name}")

    def holds(self, name: str, path: Path, sha256: str) -> bool:
        """As rsync's own checksum has it, which the other side computes from the bytes on its disk."""
        words = ["--checksum", "--dry-run", "--out-format=differs", "--", str(path), self._at(name)]
        return "differs" not in self._run(words).stdout

    def read_small(self, names: Sequence[str]) -> dict[str, bytes]:
        with tempfile.TemporaryDirectory() as folder:
            words = ["--files-from=-", f"--max-size={SMALL_BYTES}", "--", f"{self.target}/", f"{folder}/"]
            self._run(words, names=names)
            paths = {name: Path(folder) / name for name in names}
            return {name: path.read_bytes() if path.is_file() else b"" for name, path in paths.items()}

    def put(self, files: Sequence[tuple[Path, str]], advance: Advance) -> None:
        """As `Place.put`, in three steps, since rsync orders the files of one call itself: shards, seals, manifest."""
        steps: dict[tuple[int, Path], list[tuple[Path, str]]] = {}
        for path, name in files:
            kind = 0 if not name.endswith(".json") else 2 if name.endswith("manifest.json") else 1
            steps.setdefault((kind, path.parents[name.count("/")]), []).append((path, name))
        for (_, root), step in sorted(steps.items()):
            words = [*UNTIL_WHOLE, "--out-format=%l", "--files-from=-", "--", f"{root}/", f"{self.target}/"]
            self._run(words, names=[name for _, name in step], on_line=_count(advance))

    def remove(self, names: Sequence[str]) -> None:
        """As `Place.remove`: rsync deletes there what an empty folder here does not hold; the first name goes first."""
        with tempfile.TemporaryDirectory() as empty:
            for some in filter(None, (names[:1], names[1:])):
                folders = {name.rpartition("/")[0] for name in some}
                for folder in sorted(folders):
                    own = [f"--include=/{name.rpartition('/')[2]}" for name in some if name.startswith(f"{folder}/")]
                    self._run(
                        ["--recursive", "--delete", *own, "--exclude=*", "--", f"{empty}/", f"{self._at(folder)}/"]
                    )

    def _at(self, name: str) -> str:
        return f"{self.target}/{name}" if name else self.target

    def _run(
        self,
        words: Sequence[str],
        *,
        names: Sequence[str] = (),
        check: bool = True,
        on_line: Callable[[str], None] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run rsync without a shell; `-s` keeps the shell of the other side away from the names too."""
        environment = {"RSYNC_RSH": "ssh -o ConnectTimeout=30", **os.environ, "LC_ALL": "C"}
        texts = {"mode": "w+", "encoding": "utf-8", "errors": "replace"}
        with tempfile.TemporaryFile(**texts) as asked, tempfile.TemporaryFile(**texts) as said:  # type: ignore[call-overload]
            # A file, not a pipe: a shared ssh connection that stays open behind rsync would keep a pipe from ending.
            asked.write("".join(f"{name}\n" for name in names))
            asked.seek(0)
            command = ["rsync", "-s", "--no-motd", "--timeout=300", *words]
            lines = []
            with subprocess.Popen(
                command, stdin=asked, stdout=subprocess.PIPE, stderr=said, text=True, errors="replace", env=environment
            ) as process:
                assert process.stdout is not None
                for line in process.stdout:
                    lines.append(line)
                    if on_line is not None:
                        on_line(line.strip())
            said.seek(0)
            done = subprocess.CompletedProcess(command, process.returncode, "".join(lines), said.read())
        if check and done.returncode != 0:
            raise self._failed(done, "copying")
        return done

    def _failed(self, done: subprocess.CompletedProcess[str], doing: str) -> TransferError:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        what = next((what for pattern, what in KINDS if pattern.search(done.stderr)), "rsync failed")
        return TransferError(
            what,
            where=f"{self.shown}, {doing}",
            found="; ".join(lines[-4:-1] or lines)[:400] or f"rsync's exit code {done.returncode}",
            remedy="mend this, and run the same command again: what is whole is not copied again",
        )


def _count(advance: Advance) -> Callable[[str], None]:
    """Read a file's length off a line; rsync may say other things between them."""
    return lambda line: advance(int(line) if line.isdigit() else 0)
