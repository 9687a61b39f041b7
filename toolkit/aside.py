"""Calls in a thread of their own, waited for, but not for ever."""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import Any, NamedTuple, TypeVar, cast, final

Result = TypeVar("Result")


class _Outcome(NamedTuple):
    value: Any
    error: BaseException | None


@final
class Aside:
    """One thread, in which calls are made one after the other. It keeps no process from ending."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[tuple[Callable[[], Any], SimpleQueue[_Outcome]] | None] = SimpleQueue()
        Thread(target=_work, args=(self._calls,), daemon=True, name="toolkit-aside").start()

    def __call__(self, act: Callable[[], Result], seconds: float) -> Result:
        """The call's result, or its error; queue.Empty where it has none after so many seconds."""
        answer: SimpleQueue[_Outcome] = SimpleQueue()
        self._calls.put((act, answer))
        outcome = answer.get(timeout=seconds)
        if outcome.error is not None:
            raise outcome.error
        return cast(Result, outcome.value)

    def end(self) -> None:
        """The thread ends after the calls that it has."""
        self._calls.put(None)


def _work(calls: SimpleQueue[tuple[Callable[[], Any], SimpleQueue[_Outcome]] | None]) -> None:
    while (call := calls.get()) is not None:
        act, answer = call
        try:
            answer.put(_Outcome(act(), None))
        except BaseException as error:  # it is raised where the call was asked for
            answer.put(_Outcome(None, error))
        del call, act, answer
