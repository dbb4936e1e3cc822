"""What a backend of `umit launch` rendered, read back the way its scheduler would: scripts are executed by a shell
whose programs only write down how they were called, YAML is parsed, names of slices are looked up."""

import dataclasses
import itertools
import json
import math
import pathlib
import re
import subprocess

import yaml

from launch import cli
from tests.launch.conftest import CONFIGS

CONFIG = f"{CONFIGS / 'quickstart.py'}:stage1"
ACCELERATORS = {"tpu-v5-lite-podslice": "v5e", "tpu-v5p-slice": "v5p", "tpu-v6e-slice": "v6e", "tpu7x": "tpu7x"}
OF_A_PLATFORM = ("JAX_PLATFORMS", "XLA_FLAGS", "JAX_LOCAL_DEVICE_IDS", "CUDA_VISIBLE_DEVICES")
OF_A_PROCESS = ("UMIT_COORDINATOR", "UMIT_PROCESS")


@dataclasses.dataclass
class Seen:
    """hosts and chips of a host, as the scheduler is asked for them; env: as the process finds it; secrets: names."""

    accelerator: str
    hosts: int
    chips: int
    slices: int
    image: str
    command: list[str]
    env: dict[str, str]
    secrets: set[str]
    mounts: list[tuple[str, str]]


def dry_run(capsys, *flags: str) -> tuple[list[dict], dict[str, str]]:
    """The commands and the files that `umit launch FLAGS --dry-run` shows."""
    assert cli.main(["launch", *flags, "--dry-run", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    return summary["commands"], summary["files"]


def read(backend: str, commands: list[dict], files: dict[str, str], scratch: pathlib.Path) -> Seen:
    if backend == "local":
        return _local(commands)
    (command,), (text,) = commands, files.values()
    options = dict(word.removeprefix("--").partition("=")[::2] for word in command["argv"] if word.startswith("--"))
    readers = {"slurm": _slurm, "gke": _gke, "xpk": _xpk, "tpu-vm": _tpu_vm, "skypilot": _skypilot}
    assert any(path in word for path in files for word in command["argv"])  # the file is the one that is submitted
    return readers[backend](text, options, scratch)


def _local(commands: list[dict]) -> Seen:
    (argv,) = {tuple(command["argv"]) for command in commands}
    env = commands[0]["env"]
    count = re.search(r"host_platform_device_count=(\d+)", env["XLA_FLAGS"])
    own = {k: v for k, v in env.items() if k not in OF_A_PROCESS}
    return Seen("cpu", len(commands), int(count[1]), 1, "", ["umit", *argv[argv.index("launch") + 1 :]], own, set(), [])


def _slurm(text: str, options: dict, scratch: pathlib.Path) -> Seen:
    directives = dict(re.findall(r"^#SBATCH --([\w-]+)=(.*)$", text, re.MULTILINE))
    calls, env = execute(text, scratch, ("srun", "squeue", "scontrol"))
    srun = next(call for call in calls if call[0] == "srun")
    image = next((word.partition("=")[2] for word in srun if word.startswith("--container-image=")), "")
    listed = next((word.partition("=")[2] for word in srun if word.startswith("--container-mounts=")), "")
    mounts = [tuple(mount.split(":")) for mount in listed.split(",") if mount]
    hosts, chips = int(directives["nodes"]), int(directives["gpus-per-node"])
    return Seen("gpu", hosts, chips, 1, image, srun[srun.index("umit") :], env, _asked(text), mounts)


def _gke(text: str, options: dict, scratch: pathlib.Path) -> Seen:
    jobs = yaml.safe_load(text)["spec"]["replicatedJobs"][0]
    job = jobs["template"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    chip = ACCELERATORS[pod["nodeSelector"]["cloud.google.com/gke-tpu-accelerator"]]
    claims = {v["name"]: v["persistentVolumeClaim"]["claimName"] for v in pod["volumes"] if "emptyDir" not in v}
    values = [entry for entry in container["env"] if "value" in entry]
    return Seen(
        f"{chip}:{pod['nodeSelector']['cloud.google.com/gke-tpu-topology']}",
        job["parallelism"] * jobs["replicas"],
        container["resources"]["limits"]["google.com/tpu"],
        jobs["replicas"],
        container["image"],
        [_expanded(word) for word in container["command"]],
        {entry["name"]: _expanded(entry["value"]) for entry in values},
        {entry["name"] for entry in container["env"] if "valueFrom" in entry},
        [(claims[m["name"]], m["mountPath"]) for m in container["volumeMounts"] if m["name"] in claims],
    )


def _xpk(text: str, options: dict, scratch: pathlib.Path) -> Seen:
    """xpk takes hosts of 4 chips, but for slices of one chip, and writes values as given into double quotes."""
    kind, shape = options["tpu-type"].split("-")
    lines = [line.partition("=") for line in text.splitlines()]
    calls, _ = execute(_expanded(options["command"]), scratch, ("umit",))
    chips = math.prod(map(int, shape.split("x")))
    return Seen(
        f"{ {'v5litepod': 'v5e'}.get(kind, kind) }:{shape}".replace(" ", ""),
        chips // min(chips, 4) * int(options["num-slices"]),
        min(chips, 4),
        int(options["num-slices"]),
        options["docker-image"],
        calls[0],
        {name: _expanded(yaml.safe_load(f'"{value}"')) for name, equals, value in lines if equals},
        {name for name, equals, _ in lines if not equals},
        [],
    )


def _tpu_vm(text: str, options: dict, scratch: pathlib.Path) -> Seen:
    script = re.search(r"run\.sh <<'(.*?)'\n(.*?\n)\1\n", text, re.DOTALL)
    calls, env = execute(script[2], scratch, ("docker", "umit", "gcloud"))
    call = next(call for call in calls if call[0] == "umit" or call[:2] == ["docker", "run"])
    command = call[call.index("umit") :]
    image = call[call.index("umit") - 1] if call[0] == "docker" else ""
    secrets = _asked(text)
    if image:  # a container has only what is named
        named = [name for flag, name in itertools.pairwise(call) if flag == "--env"]
        assert secrets <= set(named)
        env = {name: env[name] for name in named if name not in secrets}
    mounts = [tuple(mount.split(":")) for flag, mount in itertools.pairwise(call) if flag == "--volume"]
    slices = int(options.get("node-count", 1))
    shape, hosts, chips = _machines(options["accelerator-type"])
    return Seen(shape, hosts * slices, chips, slices, image, command, env, secrets, mounts)


def _skypilot(text: str, options: dict, scratch: pathlib.Path) -> Seen:
    task = yaml.safe_load(text)
    calls, _ = execute(task["run"], scratch, ("umit",))
    accelerator, _, count = task["resources"]["accelerators"].removeprefix("tpu-").partition(":")
    assert (count, task["num_nodes"]) == ("1", 1)
    image = task["resources"].get("image_id", "").removeprefix("docker:")
    mounts = [(mount["source"], path) for path, mount in task.get("file_mounts", {}).items()]
    return Seen(*_machines(accelerator), 1, image, calls[0], task["envs"], set(task.get("secrets", ())), mounts)


def _machines(name: str) -> tuple[str, int, int]:
    """Shape, hosts and chips of a host of a TPU VM slice: v5e and v6e have all of up to 8 chips on one host."""
    from umit_jax.aot.topology import names

    shape = names()[name.replace("v5litepod", "v5e")]
    chips = math.prod(map(int, shape.partition(":")[2].split("x")))
    on_a_host = chips if chips == 1 or (chips == 8 and shape[:3] in ("v5e", "v6e")) else 4
    return shape, chips // on_a_host, on_a_host


def _expanded(text: str) -> str:
    """As Kubernetes does where no variable of the name is known."""
    return text.replace("$$", "$")


def _asked(text: str) -> set[str]:
    """Variables that a script takes from elsewhere."""
    return set(re.findall(r'"\$\{(\w+):\?', text)) | set(re.findall(r'^(\w+)="\$\(gcloud secrets', text, re.MULTILINE))


def execute(script: str, scratch: pathlib.Path, programs: tuple[str, ...]) -> tuple[list[list[str]], dict[str, str]]:
    """Runs a script whose programs do nothing; returns how they were called, and the environment the script had set."""
    (scratch / "bin").mkdir(parents=True)
    for name in programs:
        program = scratch / "bin" / name
        program.write_text(
            f'#!/bin/bash\nprintf "%s\\0" {name} "$@" $\'\\1\' >> {scratch}/calls\nenv -0 > {scratch}/env\n'
        )
        program.chmod(0o755)
    start = {"PATH": f"{scratch / 'bin'}:/usr/bin:/bin", "HF_TOKEN": "known", "SLURM_JOB_ID": "1", "SHLVL": "0"}
    done = subprocess.run(["bash", "-c", script], env=start, cwd=scratch, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    calls = [call.split("\0")[:-1] for call in (scratch / "calls").read_text().split("\1\0") if call]
    found = dict(entry.partition("=")[::2] for entry in (scratch / "env").read_text().split("\0") if entry)
    return calls, {k: v for k, v in found.items() if k not in {*start, "PWD", "OLDPWD", "_"}}
