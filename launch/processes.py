"""Which process of how many this is, found out before jax looks for devices.

| environment                                         | what is done                                            |
| UMIT_PROCESSES, UMIT_COORDINATOR, UMIT_PROCESS      | joins as told (`umit launch local`, or by hand)         |
| UMIT_PROCESSES alone                                | jax detects Slurm, GKE or TPU VM; the count must agree  |
| none of them, but a Slurm step, MPI or a TPU slice  | jax detects; however many there are                     |
| nothing                                             | a process of its own                                    |

Processes that fail to find each other would each train a model of their own into one workdir: hence the count.
"""

import multiprocessing
import os
import pathlib
import sys
import threading

VARIABLES = COORDINATOR, COUNT, INDEX = "UMIT_COORDINATOR", "UMIT_PROCESSES", "UMIT_PROCESS"
_LEAVE_SECONDS = 10.0  # how long a process that failed waits for the others to fail as well


class ProcessError(ValueError):
    """Processes that do not find each other; the message names the variable."""


def join() -> None:
    """Joins the other processes of the run. To be called before anything asks jax for a device."""
    expected = _number(COUNT, 0)
    told = [name for name in (COORDINATOR, INDEX) if os.environ.get(name)]
    if told and (len(told) < 2 or not expected):
        raise ProcessError(f"{told[0]}: expected {COORDINATOR}, {COUNT} and {INDEX} together")
    if expected == 1 or not (expected or _on_a_cluster()):
        return
    import jax

    if told:
        index = _number(INDEX, -1)
        if not 0 <= index < expected:
            raise ProcessError(f"{INDEX}: expected 0..{expected - 1}, found {index}")
        jax.distributed.initialize(os.environ[COORDINATOR], expected, index, cluster_detection_method="deactivate")
        return
    try:
        jax.distributed.initialize()
    except ValueError as error:
        raise ProcessError(f"{COUNT}: expected {expected or 'several'} processes, but {error}") from error
    if expected and jax.process_count() != expected:
        raise ProcessError(f"{COUNT}: expected {expected} processes, found {jax.process_count()}")


def leave(status: int) -> None:
    """Ends a process that failed. An ordinary exit would wait for its other threads: those of a save that cannot end,
    because the bucket is gone, and those of a collective in which the other processes of a run wait for this one."""
    import jax

    if jax.distributed.is_initialized():
        waiting = threading.Thread(target=jax.distributed.shutdown, daemon=True)
        waiting.start()
        waiting.join(_LEAVE_SECONDS)
    for child in multiprocessing.active_children():
        child.terminate()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    if not text:
        return default
    if not text.isdigit():
        raise ProcessError(f"{name}: expected a number, found {text!r}")
    return int(text)


def _on_a_cluster() -> bool:
    """Whether this looks like one of several processes. A TPU VM of one host counts: jax finds that it is alone."""
    if any(_number(name, 1) > 1 for name in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")):
        return True
    if os.environ.get("JAX_PLATFORMS") == "cpu":
        return False
    hosts = os.environ.get("TPU_PROCESS_ADDRESSES") or os.environ.get("TPU_WORKER_HOSTNAMES") or ""
    return "," in hosts or bool(os.environ.get("MEGASCALE_NUM_SLICES")) or any(pathlib.Path("/dev").glob("accel*"))
