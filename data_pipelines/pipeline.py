"""The chunks of `umit prepare` on Apache Beam: on this machine's cores, or on the cluster that the flags name.

Beam's runner for one machine has habits that this module takes from it:

| Beam                                                      | here                                                     |
| its servers take connections from every machine, and give | they are bound to this machine's own address             |
| out files to whoever asks                                 |                                                          |
| waits for ever when a worker process is killed            | the run ends with one line; the next goes on from there  |
| an error is the text of a traceback of another process    | the one line that the error says                         |
| tells what it does, and a failure many times over         | a few lines of each worker's start                       |
"""

import contextlib
import functools
import json
import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil

from data_pipelines.publish import ShardError, first_line

_LOCAL = "--runner=FnApiRunner"
_SETTINGS = "PIPELINE_OPTIONS_FILE"  # the runner gives its workers no options otherwise
_LOOK = 0.5  # seconds between looks at the workers
_PATIENCE = 5.0  # seconds for Beam to notice that its workers are gone


def beam_flags(runner: str, workers: int, options: Sequence[str] = ()) -> list[str]:
    """Flags of Apache Beam for `umit prepare --runner`: "direct" means this machine, `workers` processes (0: a process
    a core), no flags for one; any other name, and every one of the options, is passed on as it is."""
    if runner != "direct":
        return [f"--runner={runner}", *options]
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    processes = workers or usable
    if processes == 1:
        return []
    several = ["--direct_running_mode=multi_processing", f"--direct_num_workers={processes}"]
    return [_LOCAL, *several, *options]


def run(
    work: Callable[[Any], Any], jobs: Iterable[Any], flags: Sequence[str], errors: Path, tick: Callable[[], None]
) -> None:
    """`work` of every job, both picklable, somewhere; `tick` is called here now and then meanwhile.

    errors: a file that the workers reach, where one says what it failed of. Raises ShardError.
    """
    errors.unlink(missing_ok=True)
    failed: list[BaseException] = []
    told = functools.partial(_tell, work, errors)
    thread = threading.Thread(target=_pipeline, args=(told, list(jobs), flags, failed))
    thread.daemon = True  # it may wait for a worker that is gone
    with _alone(errors.with_name("worker.json")) if _LOCAL in flags else contextlib.nullcontext([]) as lost:
        thread.start()
        try:
            while thread.is_alive() and not lost:
                thread.join(_LOOK)
                tick()
        finally:
            _end_workers()  # those of a pipeline that came to its end are gone already
            thread.join(_PATIENCE)
    if errors.exists():
        raise ShardError(errors.read_text(encoding="utf-8"))
    if lost:
        raise ShardError("a worker process was killed (out of memory?); the same command goes on from here")
    for error in failed:
        raise error


def _pipeline(work: Any, jobs: list[Any], flags: Sequence[str], failed: list[BaseException]) -> None:
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    try:
        with beam.Pipeline(options=PipelineOptions(list(flags))) as pipeline:
            _ = pipeline | beam.Create(jobs) | beam.Reshuffle() | "convert" >> beam.Map(work)
    except BaseException as error:
        failed.append(error)


def _tell(work: Callable[[Any], Any], errors: Path, job: Any) -> Any:
    try:
        return work(job)
    except (ValueError, OSError) as error:
        errors.write_text(first_line(error), encoding="utf-8")
        raise


@contextlib.contextmanager
def _alone(settings: Path) -> Iterator[list[str]]:
    """Beam's servers on this machine's own address and its workers watched: a list that says which one was lost.
    settings: a file for what the workers are told."""
    import grpc

    lost: list[str] = []
    settings.write_text(json.dumps({"default_sdk_harness_log_level": "CRITICAL"}))
    os.environ[_SETTINGS] = str(settings.resolve())
    server, hook, level = grpc.server, threading.excepthook, logging.getLogger("apache_beam").level

    def own_address(*args: Any, **options: Any) -> Any:
        made = server(*args, **options)
        bind = made.add_insecure_port
        made.add_insecure_port = lambda address: bind(address.replace("[::]:", "localhost:"))
        return made

    def watch(failure: threading.ExceptHookArgs) -> None:
        if failure.thread is not None and failure.thread.name == "run_worker":  # Beam's, that waits for a process
            lost.append(str(failure.exc_value))
        elif not lost:
            hook(failure)

    grpc.server, threading.excepthook = own_address, watch
    logging.getLogger("apache_beam").setLevel(logging.CRITICAL)
    try:
        yield lost
    finally:
        del os.environ[_SETTINGS]
        grpc.server, threading.excepthook = server, hook
        logging.getLogger("apache_beam").setLevel(level)


def _end_workers() -> None:
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "apache_beam.runners.worker" in " ".join(process.cmdline()):
                process.kill()
