"""What goes wrong on the way to another place, said in one message, whichever package said it."""

import contextlib
import re
from collections.abc import Iterator

from pipeline.errors import PipelineError, TransferError

CREDENTIALS = {"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "LocalTokenNotFoundError"}
DENIED = {"PermissionError", "PermissionDenied", "SFTPPermissionDenied", "GatedRepoError", "DisabledRepoError"}
UNKNOWN_HOST_KEY = {"HostKeyNotVerifiable"}
NOT_THERE = {"FileNotFoundError", "SFTPNoSuchFile", "RepositoryNotFoundError", "RevisionNotFoundError"}
UNREACHABLE = {"ConnectionError", "gaierror", "TimeoutError", "FSTimeoutError", "EndpointConnectionError"}
UNREACHABLE |= {"ConnectTimeoutError", "ConnectError", "ConnectTimeout", "ConnectionLost", "OfflineModeIsEnabled"}
FULL = {"SFTPNoSpaceOnFilesystem", "SFTPQuotaExceeded"}

KINDS: tuple[tuple[set[str], str, str], ...] = (
    (CREDENTIALS, "there are no credentials for this place", "{login}"),
    (
        UNKNOWN_HOST_KEY,
        "the host's key is not known, so this may be another host",
        "connect with ssh once, and check it",
    ),
    (DENIED, "this place denies access", "check user, key or token, and what they may do there: {login}"),
    (UNREACHABLE, "this place cannot be reached", "check the host's name, the port and the network"),
    (NOT_THERE, "there is no such place", "check the name; push makes folders, but neither buckets nor repositories"),
    (FULL, "the disk there is full", "make room there, and run the same command again"),
)
LOGIN = {
    "s3": "aws configure, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "hf": "hf auth login, or HF_TOKEN",
    "sftp": "ssh-add, or ~/.ssh/config",
    "ssh": "ssh-add, or ~/.ssh/config",
}


def shown_url(url: str) -> str:
    """A URL without its password."""
    return re.sub(r"(://[^/@:]*):[^/@]*@", r"\1:***@", url)


@contextlib.contextmanager
def telling(shown: str, doing: str) -> Iterator[None]:
    """Turn whatever a protocol's package raises into one message.

    Args:
        shown: the place.
        doing: what was tried there, such as `cola/train: listing`.

    Raises:
        TransferError: always, where anything but an error of this project was raised.
    """
    try:
        yield
    except PipelineError:
        raise
    except Exception as error:  # each protocol's package has a root error of its own, and some have none
        raise explain(error, shown, doing) from error


def explain(error: BaseException, shown: str, doing: str) -> TransferError:
    """The message for an error that some protocol's package raised."""
    chain = [error]  # a cause may say more than what was raised last
    while len(chain) < 10 and (link := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(link)
    login = LOGIN.get(shown.partition("://")[0], "see the protocol's documentation")
    for cause in chain:
        names = {kind.__name__ for kind in type(cause).__mro__}
        for kinds, what, remedy in KINDS:
            if names & kinds:
                return TransferError(
                    what, where=f"{shown}, {doing}", found=_brief(cause), remedy=remedy.format(login=login)
                )
    return TransferError(
        "this place answers with an error",
        where=f"{shown}, {doing}",
        found=_brief(error),
        remedy="run the same command again: what is whole is not copied again",
    )


def _brief(error: BaseException) -> str:
    text = shown_url(" ".join(str(error).split()))
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__
