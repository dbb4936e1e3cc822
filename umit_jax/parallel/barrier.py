"""Waiting for the other processes of a run without touching a device.

A collective of devices gives up after half a minute on CPUs; the coordination service of jax.distributed waits as long
as it is told, and ends every process when one of them dies.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import orbax.checkpoint as ocp

_SECONDS = 24 * 3600  # a process that dies is noticed by its heartbeat, long before
_compiled: set[tuple[Any, ...]] = set()


def wait_for_all(what: str) -> None:
    """Returns in each process once all have called it. what: names the place; a place is passed once."""
    if jax.process_count() > 1:
        ocp.multihost.get_barrier_sync_fn()(key=f"umit/{what}", timeout_ms=_SECONDS * 1000)


@contextlib.contextmanager
def first_alone(what: str) -> Iterator[None]:
    """The block is run by the first process, and then by all others: what it leaves in files, they find."""
    if jax.process_index() > 0:
        wait_for_all(what)
    yield
    if jax.process_index() == 0:
        wait_for_all(what)


def compiled_together(program: Any, *args: Any, **options: Any) -> Any:
    """program(*args, **options) of a jitted function. Where there are several processes, all have compiled it for these
    shapes before any of them runs it."""
    if jax.process_count() > 1:
        shapes = tuple((x.shape, str(x.dtype)) for x in jax.tree.leaves(args) if hasattr(x, "shape"))
        key = (program, shapes, *options.items())
        if key not in _compiled:
            program.lower(*args, **options).compile()
            _compiled.add(key)
            wait_for_all(f"compiled {len(_compiled)}")
    return program(*args, **options)
