"""Quantised weights, stored once: the next start reads a quarter of the bytes and has nothing to quantise."""

import importlib.metadata
import json
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from pipeline.backbone.facts import BackboneFacts
from pipeline.digests import sha256_of_record, xxh3_of_file
from pipeline.partials import partial_path
from pipeline.progress import say

RECORD = "stored.json"
"""Beside the weights: what they were made of, and digests of the files."""


class StoredWeights:
    """The place of one backbone's quantised weights, `<models_dir>/<name>-<quantisation>-<digest>`.

    The digest is of all that decides their bytes: the checkpoint's weights, its architecture, the quantisation with its
    compute dtype, and bitsandbytes' version. A folder whose files are not those of its record is never read.

    Args:
        name: the backbone's.
        facts: about the backbone as it was asked for.
        models_dir: where models are kept.
    """

    def __init__(self, name: str, facts: BackboneFacts, models_dir: Path) -> None:
        self.made_of = {
            "weights": facts.weights,
            "architecture": facts.architecture,
            "quantization": facts.quantization,
            "bitsandbytes": importlib.metadata.version("bitsandbytes"),
        }
        self.folder = models_dir / f"{name}-{facts.quantization['type']}-{sha256_of_record(self.made_of)[:12]}"

    def are_sound(self) -> bool:
        """Whether they are there, whole and as they were written; damage is said."""
        if not self.folder.is_dir() or self.folder.is_symlink():
            return False
        try:
            record = json.loads((self.folder / RECORD).read_text("utf-8"))
            sound = bool(record == self._record(self.folder))
        except (OSError, ValueError):
            sound = False
        if not sound:
            say(f"the quantised weights in {self.folder} are damaged: quantising again")
        return sound

    def write(self, model: Any) -> None:
        """Store a model that bitsandbytes has just quantised; where that cannot be done it is said, and no harm."""
        partial = partial_path(self.folder)
        try:
            partial.parent.mkdir(parents=True, exist_ok=True)
            model.save_pretrained(partial)
            (partial / RECORD).write_text(json.dumps(self._record(partial), indent=1, sort_keys=True) + "\n", "utf-8")
            for file in partial.iterdir():
                file.chmod(0o644)
            if self.folder.is_dir():
                if self.are_sound():  # another process was first with the same
                    return
                shutil.rmtree(self.folder)
            partial.rename(self.folder)
        except (OSError, SafetensorError) as error:
            say(f"the quantised weights could not be stored in {self.folder}: {error}; the next start quantises again")
            return
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        size_bytes = sum(path.stat().st_size for path in self.folder.iterdir())
        say(f"quantised weights stored in {self.folder} ({size_bytes / 1e9:.2f} GB): the next start reads them there")

    def _record(self, folder: Path) -> dict[str, Any]:
        files = {path.name: xxh3_of_file(path) for path in sorted(folder.iterdir()) if path.name != RECORD}
        return {"made_of": json.loads(json.dumps(self.made_of)), "files": files}
