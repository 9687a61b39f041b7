"""Streams and events of a device on which everything is done at once."""

from __future__ import annotations

from typing import Any

from toolkit.testing.accelerator.device import StandIn


class Stream:
    """In place of ``torch.cuda.Stream``; a context, too."""

    device: StandIn

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.cuda_stream = 0

    def wait_stream(self, stream: Any) -> None: ...

    def wait_event(self, event: Any) -> None: ...

    def record_event(self, event: Any = None) -> Any:
        return event

    def query(self) -> bool:
        return True

    def is_capturing(self) -> bool:
        return self.device.capturing is not None

    def synchronize(self) -> None:
        self.device.wait("synchronize")

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *error: object) -> None: ...


class Event:
    """In place of ``torch.cuda.Event``."""

    device: StandIn

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def record(self, stream: Any = None) -> None: ...

    def wait(self, stream: Any = None) -> None: ...

    def query(self) -> bool:
        return True

    def elapsed_time(self, other: Any) -> float:
        return 0.0

    def synchronize(self) -> None:
        self.device.wait("synchronize")


def stream_class(device: StandIn) -> type[Stream]:
    return type("Stream", (Stream,), {"device": device})


def event_class(device: StandIn) -> type[Event]:
    return type("Event", (Event,), {"device": device})
