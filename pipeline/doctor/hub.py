"""The Hub: whether it answers, has GLUE, and knows who asks; and where what it gives is kept."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.doctor.finding import Finding, first_line
from pipeline.housekeeping.tables import readable_size
from pipeline.tasks.hub import REPOSITORY

ANSWER_SECONDS = 3.0
"""For connecting, and for the answer."""
WITHOUT = "GLUE folders, the embedded backbone and models in the Hub's cache work without"


def check_hub() -> Iterator[Finding]:
    """Ask the Hub for GLUE's record, unless HF_HUB_OFFLINE says not to."""
    import huggingface_hub
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        yield Finding(
            "Hub",
            "note",
            "HF_HUB_OFFLINE is set: nothing was asked",
            means=WITHOUT,
            remedy="unset HF_HUB_OFFLINE to fetch models or GLUE",
        )
    else:
        yield _ask(huggingface_hub, constants.ENDPOINT)
    token = huggingface_hub.get_token() is not None
    yield Finding(
        "token of the Hub",
        "ok",
        "there" if token else "none",
        means="" if token else "only gated and private models need one (hf auth login)",
        facts={"token": token},
    )
    yield _cache(Path(constants.HF_HUB_CACHE))


def _ask(hub: Any, endpoint: str) -> Finding:
    facts: dict[str, Any] = {"endpoint": endpoint, "status": None}
    try:
        answer = hub.get_session().get(f"{endpoint}/api/datasets/{REPOSITORY}", timeout=ANSWER_SECONDS)
    except Exception as error:  # of whatever client the Hub's library uses
        return Finding(
            "Hub",
            "note",
            f"{endpoint} cannot be reached: {first_line(error)}",
            means=WITHOUT,
            remedy="check the network, HTTPS_PROXY and HF_ENDPOINT; HF_HUB_OFFLINE=1 spares the waiting",
            facts=facts,
        )
    facts["status"] = answer.status_code
    if answer.status_code >= 500:
        return Finding(
            "Hub",
            "note",
            f"{endpoint} answers with an error of its own: {answer.status_code}",
            means=WITHOUT,
            remedy="wait, or name a mirror with HF_ENDPOINT",
            facts=facts,
        )
    if answer.status_code != 200:
        return Finding(
            "Hub",
            "note",
            f"{endpoint} answers, but not with {REPOSITORY}: {answer.status_code}",
            means="make data would fail",
            remedy="check HF_ENDPOINT and the token (hf auth login)",
            facts=facts,
        )
    return Finding("Hub", "ok", f"{endpoint} answers and has {REPOSITORY}", facts=facts)


def _cache(folder: Path) -> Finding:
    absolute = folder.expanduser().absolute()
    free = shutil.disk_usage(next(each for each in (absolute, *absolute.parents) if each.is_dir())).free
    state = "" if absolute.is_dir() else ", not there yet"
    return Finding(
        "cache of the Hub",
        "ok",
        f"{folder}{state}: {readable_size(free)} free",
        means="models of the Hub are kept there (HF_HOME); the 8B default takes 16 GB",
        facts={"folder": str(folder), "free_bytes": free},
    )
