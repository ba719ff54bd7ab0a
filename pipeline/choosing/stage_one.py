"""Stage one of one contender, in a process of its own: its peak memory is its own, and its failure nobody else's."""

import contextlib
import multiprocessing
import signal
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from pipeline.choosing.contender import Contender
from pipeline.choosing_config import BackbonesConfig
from pipeline.config import BackboneConfig, CacheConfig, ExtractConfig, PassConfig, TokensConfig
from pipeline.errors import BackboneError, PipelineError
from pipeline.progress import be_quiet, is_quiet
from pipeline.tasks.examples import Examples
from pipeline.terminal import missing_package

POOLINGS = ("mean", "last")
"""What is kept of a contender's layer; heads are tried on either, and on both side by side."""
STOPPING_SECONDS = 10.0


@dataclass(frozen=True)
class Request:
    """What the process is to do: picklable.

    Args:
        contender: whose features.
        splits: the rows.
        data_source: of the rows, for records.
        what: the command's settings.
        cache: where features go.
    """

    contender: Contender
    splits: tuple[Examples, ...]
    data_source: str
    what: BackbonesConfig
    cache: CacheConfig


def make_features(request: Request) -> list[dict[str, Any]]:
    """Write what is not there yet of a contender's features.

    Returns:
        a record for each feature set, as `pipeline.extract.run.extract` gives them.

    Raises:
        PipelineError: the contender cannot be had, and why.
    """
    fresh = multiprocessing.get_context("spawn")  # a copy of this process would begin with its memory
    receiver, sender = fresh.Pipe(duplex=False)
    process = fresh.Process(
        target=_work, args=(sender, request, is_quiet()), name=f"stage one of {request.contender}", daemon=True
    )
    process.start()
    sender.close()
    try:
        outcome = receiver.recv()
    except EOFError:
        outcome = None
    finally:
        process.join(STOPPING_SECONDS)  # an interrupt reaches it too: it ends by itself
        if process.is_alive():
            process.kill()
            process.join()
    if isinstance(outcome, PipelineError):
        raise outcome
    if outcome is None:
        raise _ended(request.contender, process.exitcode)
    records: list[dict[str, Any]] = outcome
    return records


def _ended(contender: Contender, code: int | None) -> BackboneError:
    killed = code == -signal.SIGKILL
    return BackboneError(
        "stage one was killed, as a system does that is out of memory" if killed else "stage one ended in its midst",
        where=contender,
        found=f"exit code {code}",
        remedy="use a machine with more memory, or --compute-dtype bfloat16, which takes half" if killed else None,
    )


def _work(sender: Connection, request: Request, quiet: bool = False) -> None:
    """In the process: send back records, or an error."""
    try:
        with be_quiet() if quiet else contextlib.nullcontext():
            sender.send(extract_request(request))
    except PipelineError as error:
        sender.send(error)
    except KeyboardInterrupt:
        sender.close()  # who started this was interrupted too, and says so
    except Exception as error:
        traceback.print_exc()
        found = f"{type(error).__name__}: {_first_line(error)}"
        sender.send(BackboneError("stage one failed", where=request.contender, found=found))


def extract_request(request: Request) -> list[dict[str, Any]]:
    """The same in this process."""
    try:
        from pipeline.extract.run import extract_splits
    except ModuleNotFoundError as error:
        raise missing_package(error, "extract") from error
    what, contender = request.what, request.contender
    backbone = BackboneConfig(
        backbone=contender.backbone,
        revision=contender.revision,
        quantization=contender.quantization,
        compute_dtype=what.compute_dtype,
        device=what.device,
        models_dir=what.models_dir,
    )
    return extract_splits(
        request.splits,
        ExtractConfig(layers=(str(contender.layer),), poolings=POOLINGS),
        request.data_source,
        backbone,
        TokensConfig(prompt=what.prompt),
        PassConfig(threads=what.threads),
        request.cache,
    )


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "")
