"""Workers of a Ray cluster that pull pieces of work; one that dies is replaced, and its piece is done again."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self, TypeVar

from pipeline.errors import MachineError
from pipeline.progress import say

Piece = TypeVar("Piece")
MOST_DEATHS = 3
"""Workers that may die on one piece: what kills every worker is no accident of theirs."""


def cause_of(error: Any) -> BaseException:
    """What a task raised, as it raised it."""
    return error.cause if isinstance(error.cause, BaseException) else error


class WorkerPool:
    """Hands pieces of work to workers, each the next one as soon as it has done its last. A context manager.

    Args:
        make: starts a worker, a Ray actor.
        workers: how many, at most; they are started when they are needed.
        lighter: settings with which a worker takes less memory, for people.
    """

    def __init__(self, make: Callable[[], Any], workers: int, lighter: str) -> None:
        self._make, self._most, self._lighter = make, workers, lighter
        self._idle: list[Any] = []
        self._busy: dict[Any, tuple[Any, Any]] = {}

    def open(self) -> None:
        """Start all workers, which make themselves ready by their method `open`; wait for the first of them.

        Raises:
            PipelineError: it raised it.
        """
        import ray

        self._idle = [self._make() for _ in range(self._most)]
        ready, _ = ray.wait([worker.open.remote() for worker in self._idle], num_returns=1)
        try:
            ray.get(ready[0])
        except ray.exceptions.RayActorError:
            pass  # it is replaced when its first piece is asked of it
        except ray.exceptions.RayTaskError as error:
            raise cause_of(error) from None

    def results(self, pieces: Sequence[Piece], begin: Callable[[Any, Piece], Any]) -> Iterator[tuple[Piece, Any]]:
        """Each piece with what came of it, in the order in which they are done.

        Args:
            pieces: the next one is begun when a worker is free.
            begin: has a worker begin a piece; gives the reference of what comes of it.

        Raises:
            MachineError: a piece was the death of `MOST_DEATHS` workers.
            PipelineError: a worker raised it.
        """
        import ray

        waiting, deaths = deque(pieces), dict.fromkeys(pieces, 0)
        while waiting or self._busy:
            while waiting and (self._idle or len(self._busy) < self._most):
                worker = self._idle.pop() if self._idle else self._make()
                piece = waiting.popleft()
                self._busy[begin(worker, piece)] = (worker, piece)
            done, _ = ray.wait(list(self._busy), num_returns=1)
            worker, piece = self._busy.pop(done[0])
            try:
                result = ray.get(done[0])
            except (ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError) as error:
                self._replace(worker, piece, deaths, error)
                waiting.appendleft(piece)
                continue
            except ray.exceptions.RayTaskError as error:
                raise cause_of(error) from None
            self._idle.append(worker)
            yield piece, result

    def _replace(self, worker: Any, piece: Piece, deaths: dict[Piece, int], error: Exception) -> None:
        import ray

        deaths[piece] += 1
        ray.kill(worker)
        say(f"a worker died on {piece}: another one takes its place, and does it again")
        if deaths[piece] >= MOST_DEATHS:
            lines = str(error).splitlines()  # of one that was never made, the end of a traceback says why
            why = lines[-1 if getattr(error, "actor_init_failed", False) else 0]
            raise MachineError(
                "every worker dies on this piece of work",
                where=piece,
                found=f"{deaths[piece]} deaths; the last: {why}",
                remedy=f"a worker that is out of memory is killed: take {self._lighter}, and look into Ray's logs; "
                "what is whole is kept, and the same command goes on",
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        import ray

        for worker in (*self._idle, *(worker for worker, _ in self._busy.values())):
            ray.kill(worker)
