"""Counts compilations: what compiles more often than planned costs minutes that nothing else shows."""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax


@contextlib.contextmanager
def compilations(*names: str) -> Iterator[list[float]]:
    """Seconds of every compilation of the jitted functions of these names while the context is open."""
    seconds: list[float] = []

    def listen(event: str, duration: float, **details: Any) -> None:
        function = str(details.get("fun_name"))
        if event.endswith("backend_compile_duration") and any(name in function for name in names):
            seconds.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield seconds
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
