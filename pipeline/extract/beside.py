"""Work beside the compute: shards are planned ahead, and where a GPU computes, written behind."""

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, Self, TypeVar

Result = TypeVar("Result")


class Behind:
    """Does one thing after another, in a thread of its own or at once. A context manager.

    Nothing is begun before the last thing is done, so that no more than one waits; its error is raised then.

    Args:
        in_thread: return while it is being done.
    """

    def __init__(self, *, in_thread: bool) -> None:
        self._executor = ThreadPoolExecutor(1) if in_thread else None
        self._doing: Future[None] | None = None

    def do(self, work: Callable[[], None]) -> None:
        """Have something done when what is being done is."""
        self.wait()
        if self._executor is None:
            work()
        else:
            self._doing = self._executor.submit(work)

    def wait(self) -> None:
        """Until nothing is being done."""
        doing, self._doing = self._doing, None
        if doing is not None:
            doing.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._executor is not None:
            self._executor.shutdown()
        if kind is None:
            self.wait()


class Ahead(Generic[Result]):
    """Makes the next of several things while one is being used. A context manager.

    Args:
        make: makes the thing of a number.
        numbers: in the order in which they will likely be asked for; any may be left out.
    """

    def __init__(self, make: Callable[[int], Result], numbers: Iterable[int]) -> None:
        self._make, self._numbers = make, list(numbers)
        self._executor = ThreadPoolExecutor(1)
        self._making: dict[int, Future[Result]] = {}

    def get(self, number: int) -> Result:
        """The thing of a number; the one after it is begun."""
        made = self._making.pop(number, None) or self._executor.submit(self._make, number)
        result = made.result()
        self._making.clear()
        after = [other for other in self._numbers if other > number][:1]
        self._making |= {other: self._executor.submit(self._make, other) for other in after}
        return result

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown(cancel_futures=True)
