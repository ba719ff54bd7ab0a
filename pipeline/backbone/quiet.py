"""Loading without other libraries' bars and notices on the terminal: the project has a progress line of its own."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Keep transformers' progress bars, and bitsandbytes' notice that it found no Hub kernel, off the terminal."""
    from transformers.utils import logging as transformers_logging

    bnb = logging.getLogger("bitsandbytes")
    level, bars = bnb.level, transformers_logging.is_progress_bar_enabled()
    bnb.setLevel(logging.ERROR)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        bnb.setLevel(level)
        if bars:
            transformers_logging.enable_progress_bar()
