"""`umit launch tpu-vm`: a queued resource whose machines run umit as a service of systemd from their startup script.

| what happens                      | what follows                                                                     |
| the machines boot, or boot again  | the startup script writes the service and starts it; umit resumes                |
| a machine is stopped or preempted | SIGTERM; SIGKILL --grace-seconds later, unless Google is earlier (spot: 30 s)    |
| umit fails                        | starts again after 30 s, --max-restarts times an hour; not after wrong usage (2) |
| a spot slice is preempted         | the queued resource is SUSPENDED: delete it and launch again (docs/pods.md)      |
"""

import argparse
import re
import shlex
from typing import Any

from launch.cli import USAGE, UsageError
from launch.pods import cluster, tpu
from launch.pods.run import Command, Rendered, Run, Topology

_RESTART_SECONDS = 30  # longer than it takes the other hosts to notice


def add_arguments(parser: argparse.ArgumentParser) -> None:
    cluster.add_arguments(
        parser,
        image="container image; without one, --setup installs umit on the machines",
        mount="directory of the machines that the container sees",
    )
    tpu.add_arguments(parser)
    parser.add_argument("--project", required=True)
    parser.add_argument("--zone", required=True)
    parser.add_argument("--runtime-version", default="", help="what the machines boot; by default the chip's own")
    parser.add_argument("--provisioning", choices=("on-demand", "spot", "reserved"), default="on-demand")
    parser.add_argument("--service-account", default="", metavar="EMAIL", help="may read the bucket and the secrets")
    parser.add_argument("--setup", default="", metavar="LINE", help="shell line executed before umit")


def topology(args: argparse.Namespace) -> Topology:
    return tpu.topology(args, hosts_of_8=True)


def render(run: Run, args: argparse.Namespace) -> Rendered:
    cluster.shared_workdir(run, mounted=bool(run.image))
    cluster.image_to_mount_into(run)
    kind, runtime = tpu.vm_type(run.topology)
    path = f"{args.out}/{run.name}-startup.sh"
    nodes = [f"--node-id={run.name}"]
    if run.topology.slices > 1:
        nodes = [f"--node-count={run.topology.slices}", f"--node-prefix={run.name}"]
    argv = [
        *("gcloud", "compute", "tpus", "queued-resources", "create", run.name, *nodes),
        f"--project={args.project}",
        f"--zone={args.zone}",
        f"--accelerator-type={kind}",
        f"--runtime-version={args.runtime_version or runtime}",
        f"--metadata-from-file=startup-script={path}",
    ]
    if "," in path:  # gcloud would read a second key after it
        raise UsageError(f"--out: expected a path without a comma, found {args.out!r}")
    if args.provisioning != "on-demand":
        argv.append(f"--{args.provisioning}")
    if args.service_account:
        argv.append(f"--service-account={args.service_account}")
    return Rendered((Command(tuple(argv)),), {path: _startup(run, args)})


def start(run: Run, args: argparse.Namespace) -> dict[str, Any]:
    return cluster.start(render(run, args), "tpu-vm")


def _startup(run: Run, args: argparse.Namespace) -> str:
    """systemd reads % and $ in a unit in its own way, so that the unit only names a script."""
    directory = f"/var/lib/umit/{run.name}"
    unit = f"""\
[Unit]
Description=umit {run.name}
After=network-online.target docker.service
Wants=network-online.target
StartLimitIntervalSec=3600
StartLimitBurst={run.max_restarts + 1}
[Service]
ExecStart=/bin/bash {directory}/run.sh
Restart=on-failure
RestartPreventExitStatus={USAGE}
RestartSec={_RESTART_SECONDS}
KillMode=mixed
TimeoutStopSec={run.grace_seconds}
LimitMEMLOCK=infinity
"""
    script = _script(run, args)
    end = f"end of {run.name}"
    while end in script.splitlines():
        end += "."
    return (
        f"#!/bin/bash\nset -eu\nmkdir -p {directory}\n"
        f"cat > {directory}/run.sh <<'{end}'\n{script}{end}\n"
        f"cat > /etc/systemd/system/umit-{run.name}.service <<'{end}'\n{unit}{end}\n"
        f"systemctl daemon-reload\nsystemctl restart --no-block umit-{run.name}\n"
    )


def _script(run: Run, args: argparse.Namespace) -> str:
    environment = run.environment()
    lines = ["set -eu", *(f"export {name}={shlex.quote(value)}" for name, value in environment.items())]
    lines += [f'{name}="$(gcloud secrets versions access latest --secret={name})"' for name in run.secrets]
    lines += [f"export {' '.join(run.secrets)}"] if run.secrets else []
    lines += filter(None, [cluster.one_line("--setup", args.setup)])
    argv = list(run.argv)
    if run.image:
        registry = run.image.partition("/")[0]
        if re.fullmatch(r"[\w-]+-docker\.pkg\.dev|([a-z]+\.)?gcr\.io", registry):
            lines.append(f"gcloud auth configure-docker {registry} --quiet")
        lines.append(f"docker rm --force umit-{run.name} 2> /dev/null || true")
        names = [word for name in [*environment, *run.secrets] for word in ("--env", name)]
        argv = ["docker", "run", "--rm", "--name", f"umit-{run.name}", "--privileged", "--network=host", "--ipc=host"]
        argv += [word for source, path in run.mounts for word in ("--volume", f"{source}:{path}")]
        argv += [*names, run.image, *run.argv]
    return "\n".join([*lines, f"exec {shlex.join(argv)}"]) + "\n"
