"""A worker process of Apache Beam's on this machine (pipeline.py), which says on stderr what a user should read.

Beam's own start of a worker (apache_beam.runners.worker.sdk_worker_main) tells of its progress, and of a library for
Google's BigQuery that is not there, before it reads any option that could silence it. So the levels are set first.

| from                         | on stderr                                                            |
| the worker's start           | errors                                                               |
| Apache Beam, in its work     | failures of the worker itself; one of a job reaches the main process |
| data_pipelines               | the lines that a run in one process shows                            |
"""

import json
import logging
import os
import signal
import sys


def main() -> None:
    """Serves the jobs of the process that started this one, until that one says that there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process: the main one speaks, and ends this one
    beams, ours = logging.StreamHandler(), logging.StreamHandler()
    beams.setLevel(logging.ERROR)
    logging.getLogger().addHandler(beams)
    package = logging.getLogger("data_pipelines")
    package.addHandler(ours)
    package.setLevel(logging.INFO)
    package.propagate = False
    os.environ["PIPELINE_OPTIONS"] = json.dumps({"default_sdk_harness_log_level": "CRITICAL"})

    from apache_beam.runners.worker import sdk_worker_main

    sdk_worker_main.main(sys.argv)


if __name__ == "__main__":
    main()
