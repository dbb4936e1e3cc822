"""What is rendered for xpk, SkyPilot and systemd, read by these programs themselves, where they are at hand.

UMIT_XPK names xpk's program, UMIT_SKYPILOT_PYTHON the interpreter of an environment that has skypilot; both bring
packages that do not go together with this project's.
"""

import os
import pathlib
import re
import shutil
import subprocess

import pytest
import yaml

from tests.launch.rendered import CONFIG, dry_run
from tests.launch.test_pods import ODD

RUN = ("--config", CONFIG, "--workdir", "gs://b/run", "--env", f"A={ODD}", "--config.model=it's $x")
CLUSTER = ("--cluster", "c", "--project", "p", "--zone", "us-west4-a")


def _pod(manifest: str) -> tuple[dict, dict]:
    (jobs,) = yaml.safe_load(manifest)["spec"]["replicatedJobs"]
    return {"replicas": jobs["replicas"], **jobs["template"]["spec"]}, jobs["template"]["spec"]["template"]["spec"]


@pytest.mark.slow
@pytest.mark.parametrize("topology", ["v6e-1", "v5e-8", "v5p-512", "tpu7x-16"])
def test_xpk_makes_the_pods_that_gke_is_given(topology, capsys, tmp_path):
    if not os.environ.get("UMIT_XPK"):
        pytest.skip("UMIT_XPK does not name xpk")
    run = (
        *RUN,
        "--image",
        "a/b:1",
        "--topology",
        topology,
        "--slices",
        "2",
        "--config.mesh.data=2",
        "--out",
        str(tmp_path),
    )
    _, gke = dry_run(capsys, "gke", *run)
    (command,), files = dry_run(capsys, "xpk", *run, *CLUSTER, "--max-restarts", "7", "--grace-seconds", "90")
    for path, text in files.items():
        pathlib.Path(path).write_text(text)
    manifest = tmp_path / "manifest.yaml"
    argv = [os.environ["UMIT_XPK"], *command["argv"][1:], "--dry-run", f"--output-manifest-file={manifest}"]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (theirs, their_pod), (ours, our_pod) = _pod(manifest.read_text()), _pod(*gke.values())
    for field in ("replicas", "parallelism", "completions"):
        assert theirs[field] == ours[field], field
    assert our_pod["nodeSelector"].items() <= their_pod["nodeSelector"].items()
    assert their_pod["terminationGracePeriodSeconds"] == 90
    (container,), (mine,) = their_pod["containers"], our_pod["containers"]
    assert container["image"] == mine["image"]
    assert container["resources"]["limits"] == mine["resources"]["limits"]
    assert {e["name"]: e["value"] for e in container["env"]} == {e["name"]: e["value"] for e in mine["env"]}
    (exit_codes,) = [rule["onExitCodes"] for rule in theirs["podFailurePolicy"]["rules"]]
    assert exit_codes["operator"] == "NotIn"  # what fails the whole set
    assert {1, 70, 75, 137} <= set(exit_codes["values"])
    assert 2 not in exit_codes["values"]
    script = container["command"][2].replace("$$", "$").replace("exec umit", f'exec printf "%s\\0" > {tmp_path}/said')
    subprocess.run(["bash", "-c", script], check=True, capture_output=True)
    assert (tmp_path / "said").read_text().split("\0")[:-1] == [word.replace("$$", "$") for word in mine["command"][1:]]


@pytest.mark.slow
def test_skypilot_reads_the_task_as_it_is_meant(capsys, tmp_path):
    if not os.environ.get("UMIT_SKYPILOT_PYTHON"):
        pytest.skip("UMIT_SKYPILOT_PYTHON does not name an interpreter with skypilot")
    flags = (
        "--topology",
        "v5e-16",
        "--image",
        "a/b:1",
        "--infra",
        "gcp/us-west4/us-west4-a",
        "--spot",
        "--setup",
        "true",
    )
    _, files = dry_run(
        capsys, "skypilot", *RUN, *flags, "--mount", "gs://bucket:/data", "--secret", "HF_TOKEN", "--max-restarts", "7"
    )
    (text,) = files.values()
    program = """
import json, sys, yaml, sky
task = sky.Task.from_yaml_config(yaml.safe_load(sys.stdin), secrets_overrides=[("HF_TOKEN", "x")])
(found,) = task.resources
print(json.dumps([task.num_nodes, task.envs, found.accelerators, found.use_spot, found.job_recovery, found.zone]))
"""
    env = {**os.environ, "HOME": str(tmp_path), "SKYPILOT_DISABLE_USAGE_COLLECTION": "1"}
    argv = [os.environ["UMIT_SKYPILOT_PYTHON"], "-c", program]
    read = lambda text: subprocess.run(argv, input=text, env=env, capture_output=True, text=True)  # noqa: E731
    done = read(text)
    assert done.returncode == 0, done.stderr
    nodes, envs, accelerators, spot, recovery, zone = yaml.safe_load(done.stdout.splitlines()[-1])
    assert (nodes, accelerators, spot, zone) == (1, {"tpu-v5litepod-16": 1}, True, "us-west4-a")
    assert (envs["A"], envs["UMIT_PROCESSES"]) == (ODD, "4")
    assert (recovery["max_restarts_on_errors"], recovery["recover_on_exit_codes"]) == (7, [75, 143])
    assert read(text.replace("job_recovery", "job_recovry")).returncode != 0


def test_systemd_understands_the_service_of_a_tpu_vm(capsys, tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    _, files = dry_run(capsys, "tpu-vm", *RUN, "--topology", "v5e-16", *CLUSTER[2:], "--name", "run-7")
    (text,) = files.values()
    assert subprocess.run(["bash", "-n", "-c", text]).returncode == 0
    (unit,) = re.findall(r"umit-run-7\.service <<'(.*?)'\n(.*?\n)\1\n", text, re.DOTALL)
    service = tmp_path / "umit-run-7.service"

    def verify(unit):
        service.write_text(unit)
        done = subprocess.run(["systemd-analyze", "verify", service], capture_output=True, text=True)
        return done.stdout + done.stderr

    assert verify(unit[1]) == ""
    assert "Unknown key" in verify(unit[1].replace("KillMode", "KillMod"))
