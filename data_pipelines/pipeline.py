"""The chunks of `umit prepare` on Apache Beam: on this machine's cores, or on the cluster that the flags name.

Beam's runner for one machine has habits that this module takes from it:

| Beam                                                      | here                                                     |
| its servers take connections from every machine, and give | they are bound to this machine's own address             |
| out files to whoever asks                                 |                                                          |
| waits for ever when a worker process is killed            | the run ends with one line; the next goes on from there  |
| an error is the text of a traceback of another process    | the one line that the error says                         |
| tells what it does, and a failure many times over         | nothing; its workers start through worker.py             |
"""

import contextlib
import functools
import logging
import os
import shlex
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import psutil

from data_pipelines.publish import ShardError, first_line

logger = logging.getLogger(__name__)

_LOCAL = "--runner=FnApiRunner"
_WORKER = "data_pipelines.worker"
_LOOK = 0.5  # seconds between looks at the workers
_SERVED = ("flink", "spark", "portable")  # runners with a job server
_PATIENCE = 5.0  # seconds for Beam to notice that its workers are gone


class RunnerError(ValueError):
    """A runner, or an option of one, that Apache Beam does not know."""


def beam_flags(runner: str, workers: int, options: Sequence[str] = ()) -> list[str]:
    """Flags of Apache Beam for `umit prepare --runner`: "direct" means this machine, `workers` processes (0: a process
    a core), no flags for one; any other name, and every one of the options, is passed on as it is. Raises
    RunnerError."""
    if runner != "direct":
        _check_runner(runner)
    if options:
        _check_options(options, runner)
    if runner != "direct":
        return [f"--runner={runner}", *options]
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    processes = workers or usable
    if processes == 1 and not options:
        return []
    return [_LOCAL, f"--direct_num_workers={processes}", *options]


def by_beam(flags: Sequence[str], jobs: int) -> bool:
    """Whether Beam does the work: that of several jobs, and of one where a runner or an option of it was asked for."""
    asked = _LOCAL not in flags or len(flags) > 2
    return bool(flags) and (jobs > 1 or (jobs == 1 and asked))


def _check_runner(name: str) -> None:
    with _unsaid():
        from apache_beam.runners.runner import create_runner
    try:
        create_runner(name)
    except Exception as error:
        raise RunnerError(f"--runner: {first_line(error)}") from None


def _check_options(options: Sequence[str], runner: str) -> None:
    """Raises RunnerError for what no options class of Beam knows, which Beam itself drops without a word. A runner
    with a job server learns further options from it, so there such a one is told and passed on."""
    with _unsaid():
        from apache_beam.options.pipeline_options import PipelineOptions, _BeamArgumentParser

    class Parser(_BeamArgumentParser):
        def error(self, message: str) -> NoReturn:
            raise RunnerError(f"--runner-flag: {message}")

    parser = Parser(allow_abbrev=False, add_help=False)
    for kind in {str(kind): kind for kind in PipelineOptions.__subclasses__()}.values():
        kind._add_argparse_args(parser)
    for option in options:
        _, unknown = parser.parse_known_args([option])
        if unknown and option.startswith("--") and runner.lower().startswith(_SERVED):
            logger.warning("--runner-flag: %s: not an option of Beam's Python; its job server may know it", option)
        elif unknown or not option.startswith("--") or option.startswith("--runner="):
            raise RunnerError(f"--runner-flag: expected --NAME=VALUE, an option of Apache Beam's, found {option!r}")


def run(
    work: Callable[[Any], Any], jobs: Iterable[Any], flags: Sequence[str], errors: Path, tick: Callable[[], None]
) -> None:
    """`work` of every job, both picklable, somewhere; `tick` is called here now and then meanwhile.

    errors: a file that the workers reach, where one says what it failed of. Raises ShardError.
    """
    errors.unlink(missing_ok=True)
    failed: list[BaseException] = []
    told = functools.partial(_tell, work, errors, _LOCAL in flags)
    thread = threading.Thread(target=_pipeline, args=(told, list(jobs), flags, failed))
    thread.daemon = True  # it may wait for a worker that is gone
    with _alone() if _LOCAL in flags else contextlib.nullcontext([]) as lost:
        thread.start()
        try:
            while thread.is_alive() and not lost and not errors.exists():
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
    try:
        with _unsaid():
            import apache_beam as beam
            from apache_beam.options.pipeline_options import PipelineOptions

        runner = _processes() if _LOCAL in flags else None
        with beam.Pipeline(runner, options=PipelineOptions(list(flags))) as pipeline:
            _ = pipeline | beam.Create(jobs) | beam.Reshuffle() | "convert" >> beam.Map(work)
    except BaseException as error:
        silent = type(error).__name__ == "FutureTimeoutError"  # gRPC's, without a word
        failed.append(TimeoutError("--runner: its server does not answer") if silent else error)


@contextlib.contextmanager
def _unsaid() -> Iterator[None]:
    """What Apache Beam's modules log as they are imported is dropped: that a library of Google's is absent."""

    def others(record: logging.LogRecord) -> bool:
        return "apache_beam" not in Path(record.pathname).parts

    root, own = logging.getLogger(), logging.getLogger("apache_beam")
    level = own.level
    root.addFilter(others)
    own.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        root.removeFilter(others)
        own.setLevel(level)


def _processes() -> Any:
    """Beam's runner for this machine, with our workers as processes."""
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner
    from apache_beam.transforms.environments import SubprocessSDKEnvironment

    # A shell starts them: `exec`, because it would tell of one that was killed, in words of its own.
    command = f"exec {shlex.quote(sys.executable)} -m {_WORKER}"
    return FnApiRunner(SubprocessSDKEnvironment.from_command_string(command))


def _tell(work: Callable[[Any], Any], errors: Path, watched: bool, job: Any) -> Any:
    """watched: the main process looks for `errors` and ends the workers. Elsewhere Beam must end them, which prints a
    traceback."""
    try:
        return work(job)
    except (ValueError, OSError) as error:
        aside = errors.with_name(f"{errors.name}.{os.getpid()}")
        aside.write_text(first_line(error), encoding="utf-8")
        aside.replace(errors)
        if not watched:
            raise


@contextlib.contextmanager
def _alone() -> Iterator[list[str]]:
    """Beam's servers on this machine's own address and its workers watched: a list that says which one was lost."""
    import grpc

    lost: list[str] = []
    server, hook, level = grpc.server, threading.excepthook, logging.getLogger("apache_beam").level

    def own_address(*args: Any, **options: Any) -> Any:
        made = server(*args, **options)
        bind = made.add_insecure_port
        made.add_insecure_port = lambda address: bind(address.replace("[::]:", "localhost:"))
        return made

    def watch(failure: threading.ExceptHookArgs) -> None:
        if failure.thread is not None and failure.thread.name == "run_worker":  # Beam's, that waits for a process
            lost.append(str(failure.exc_value))
        elif not lost and not issubclass(failure.exc_type, grpc.RpcError):  # that one is gone, a server's thread says
            hook(failure)

    grpc.server, threading.excepthook = own_address, watch
    logging.getLogger("apache_beam").setLevel(logging.CRITICAL)
    try:
        yield lost
    finally:
        grpc.server, threading.excepthook = server, hook
        logging.getLogger("apache_beam").setLevel(level)


def _end_workers() -> None:
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if _WORKER in process.cmdline():
                process.kill()
