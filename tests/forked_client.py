"""Has a command run by `tests.forked.served`: what stands here in the place of `pipeline` on a command line."""

import os
import sys
from multiprocessing.connection import Client
from pathlib import Path

AUTHKEY = b"tests"


def main() -> None:
    address, *words = sys.argv[1:]
    with Client(address, authkey=AUTHKEY) as connection:
        connection.send((words, str(Path.cwd()), dict(os.environ)))
        code, out, err = connection.recv()
    sys.stdout.write(out)
    sys.stderr.write(err)
    sys.exit(code)


if __name__ == "__main__":
    main()
