"""One run, rendered by every backend of `umit launch`: all say the same of topology, image, environment and command.

Read back by tests/launch/rendered.py. And: secrets never get into any of it.
"""

import dataclasses

import pytest

from launch import cli
from tests.launch.rendered import CONFIG, OF_A_PLATFORM, dry_run, read

ON_TPU = {
    "gke": (),
    "xpk": ("--cluster", "c", "--project", "p", "--zone", "z"),
    "tpu-vm": ("--project", "p", "--zone", "z"),
    "skypilot": (),
}
ODD = "b 'c' \"d\" $HOME $(HF_TOKEN) $$ `id` %s {x} \\ é\n# : -\nend of umit\n- "


def seen(backend, capsys, scratch, *flags):
    return read(backend, *dry_run(capsys, backend, "--config", CONFIG, *flags), scratch / backend)


@pytest.mark.parametrize("value", ["b", ODD])
@pytest.mark.parametrize("image", ["", "europe-docker.pkg.dev/p/umit:1"])
def test_all_backends_agree_on_a_run(value, image, capsys, tmp_path):
    run = ("--workdir", "gs://b/run", "--env", f"A={value}", "--env", "B=", "--config.model=it's $x")
    machines = {
        "local": ("--processes", "4", "--devices-per-process", "4"),
        "slurm": ("--nodes", "4", "--devices-per-node", "4"),
        **{backend: (*flags, "--topology", "v5e-16") for backend, flags in ON_TPU.items()},
    }
    if not image:
        del machines["gke"], machines["xpk"]
    described = {}
    for backend, flags in machines.items():
        own = ("--image", image) if image and backend != "local" else ()
        described[backend] = seen(backend, capsys, tmp_path, *run, *flags, *own)
    for backend, found in described.items():
        assert (found.hosts, found.chips, found.slices) == (4, 4, 1), backend
        assert found.image == (image if backend != "local" else ""), backend
        wanted = ["umit", "train", "--config", CONFIG, "--workdir", "gs://b/run", "--config.model=it's $x"]
        assert found.command == wanted, backend
        env = {name: text for name, text in found.env.items() if name not in OF_A_PLATFORM}
        assert env == {"UMIT_PROCESSES": "4", "A": value, "B": ""}, backend
    on_tpu = [described[backend] for backend in ON_TPU if backend in described]
    assert all(found == on_tpu[0] for found in on_tpu)
    assert on_tpu[0].accelerator == "v5e:4x4"


@pytest.mark.parametrize(
    ("topology", "slices", "shape", "hosts", "chips"),
    [
        ("v5e-1", 1, "v5e:1x1", 1, 1),
        ("v5e-4", 1, "v5e:2x2", 1, 4),
        ("v5e:16x16", 2, "v5e:16x16", 128, 4),
        ("v6e-256", 1, "v6e:16x16", 64, 4),
        ("v5p-8", 1, "v5p:2x2x1", 1, 4),
        ("v5p-16", 1, "v5p:2x2x2", 2, 4),
        ("v5p-512", 2, "v5p:4x8x8", 128, 4),
        ("tpu7x-16", 1, "tpu7x:2x2x2", 2, 4),
    ],
)
def test_slices_become_hosts_and_every_host_knows_of_all(topology, slices, shape, hosts, chips, capsys, tmp_path):
    run = ("--workdir", "gs://b/run", "--image", "i", "--topology", topology, "--slices", str(slices))
    run += (f"--config.mesh.data={slices}",)
    backends = dict(ON_TPU)
    if slices > 1:
        del backends["skypilot"]
    if shape.startswith("tpu7x"):
        del backends["skypilot"], backends["tpu-vm"]
    for backend, flags in backends.items():
        found = seen(backend, capsys, tmp_path, *run, *flags)
        asked = (found.accelerator, found.hosts, found.chips, found.slices, found.env["UMIT_PROCESSES"])
        assert asked == (shape, hosts, chips, slices, str(hosts)), backend
        assert ("LIBTPU_INIT_ARGS" in found.env) == (slices > 1), backend
        assert found.env["JAX_PLATFORMS"] == "tpu,cpu", backend


def test_eight_chips_are_one_machine_as_tpu_vm_and_two_nodes_of_gke(capsys, tmp_path):
    run = ("--workdir", "gs://b/run", "--image", "i", "--topology", "v6e-8")
    found = {backend: seen(backend, capsys, tmp_path, *run, *flags) for backend, flags in ON_TPU.items()}
    hosts = {backend: (one.hosts, one.chips, one.env["UMIT_PROCESSES"]) for backend, one in found.items()}
    assert hosts == {"gke": (2, 4, "2"), "xpk": (2, 4, "2"), "tpu-vm": (1, 8, "1"), "skypilot": (1, 8, "1")}


@pytest.mark.parametrize(
    ("backend", "source"),
    [("slurm", "/lustre/a"), ("gke", "lustre"), ("tpu-vm", "/mnt/disks/a"), ("skypilot", "gs://bucket")],
)
def test_what_is_mounted_is_seen_by_every_process(backend, source, capsys, tmp_path):
    run = ("--workdir", "/data/run", "--image", "i", "--mount", f"{source}:/data", "--mount", f"{source}:/more")
    flags = () if backend == "slurm" else (*ON_TPU[backend], "--topology", "v5e-4")
    assert seen(backend, capsys, tmp_path, *run, *flags).mounts == [(source, "/data"), (source, "/more")]


@pytest.mark.parametrize("backend", ["slurm", *ON_TPU])
def test_a_secret_is_asked_for_by_its_name_alone(backend, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "not-to-be-written")
    machines = {"slurm": (), **{name: (*flags, "--topology", "v5e-4") for name, flags in ON_TPU.items()}}[backend]
    run = ("--config", CONFIG, "--workdir", "gs://b/run", "--image", "i", *machines, "--secret", "HF_TOKEN")
    commands, files = dry_run(capsys, backend, *run)
    found = read(backend, commands, files, tmp_path)
    assert found.secrets == {"HF_TOKEN"}
    assert "HF_TOKEN" not in found.env
    assert "not-to-be-written" not in str((commands, files, dataclasses.asdict(found)))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["gke", "--topology", "v5e-16"], "--image: umit launch gke needs a container image that holds umit"),
        (["gke", "--topology", "v9-16"], "--topology: expected one of v4-8, "),
        (["gke", "--topology", "v5e-16", "--slices", "0"], "--slices: expected at least 1, found 0"),
        (
            ["gke", "--topology", "v5e-4", "--image", "i", "--node-selector", "spot"],
            "--node-selector: expected KEY=VALUE",
        ),
        (["slurm", "--config.mesh.fsdp=3"], "mesh: data 1 x fsdp 3 x context 1 x tensor 1 does not fit 1 devices"),
        (["gke", "--topology", "v5e-4", "--slices", "2"], "mesh.data: expected a multiple of the 2 slices, found 1"),
        (["gke", "--topology", "v5e:1x2"], "--topology: expected one chip or hosts of 4, found 'v5e:1x2' with 2 chips"),
        (["tpu-vm", *ON_TPU["tpu-vm"], "--topology", "v5e:1x6"], "--topology: expected one chip or hosts of 4"),
        (["gke", "--topology", "v5e-4", "--image", "i", "--workdir", "run"], "--workdir: expected gs://..."),
        (
            ["gke", "--topology", "v5e-4", "--image", "i", "--workdir", "/run"],
            "or a path below one of --mount, found '/run'",
        ),
        (["skypilot", "--topology", "v5e-4", "--workdir", "/run", "--mount", "gs://b:/r"], "below one of --mount"),
        (["skypilot", "--topology", "v5e-4", "--slices", "2"], "--slices: expected 1, as SkyPilot joins no slices"),
        (["skypilot", "--topology", "tpu7x-8"], "--topology: tpu7x:2x2x1 is no TPU VM: expected v4, v5e, v5p, v6e"),
        (["tpu-vm", *ON_TPU["tpu-vm"], "--topology", "v5p:4x4x12"], "v5p:4x4x12 has no TPU VM type"),
        (["tpu-vm", "--topology", "v5e-4", "--zone", "z"], "the following arguments are required: --project"),
        (["xpk", *ON_TPU["xpk"], "--topology", "v5e-4", "--image", "i", "--config.model=a\nb"], "expected one line"),
        (["slurm", "--mount", "/a:/b"], "--mount: without --image the processes see what their machine mounts"),
        (["gke", "--topology", "v5e-4", "--image", "i", "--mount", "/data"], "--mount: expected SOURCE:/PATH"),
        (["gke", "--topology", "v5e-4", "--image", "i", "--workdir", "s3://b/run"], "argument --workdir: s3://b/run"),
        (["local", "--image", "i"], "unknown argument --image"),
    ],
)
def test_wrong_flags_are_one_line(flags, said, capsys):
    given = [] if "--workdir" in flags else ["--workdir", "gs://b/run"]
    assert cli.main(["launch", *flags, "--config", CONFIG, "--dry-run", *given]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--env", "HF_TOKEN=abcdef"], "--env HF_TOKEN: looks like a secret"),
        (["--env", "wandb_api_key=abcdef"], "expected --secret wandb_api_key"),
        (["--env", "A=hf_abcdefghijklmnopqrstuvwx"], "--env: holds what looks like a secret"),
        (["--config.tokenizer=https://me:abcdef@host/x"], "--config.KEY=VALUE: holds what looks like a secret"),
        (["--image", "https://me:abcdef@registry/umit"], "--image: holds what looks like a secret"),
        (["--secret", "HF TOKEN"], "--secret: expected NAME, found 'HF TOKEN'"),
        (["--env", "UMIT_PROCESS=3"], "--env: expected NAME=VALUE, found 'UMIT_PROCESS'"),
    ],
)
def test_what_looks_like_a_secret_is_refused_without_being_repeated(flags, said, capsys):
    assert cli.main(["launch", "slurm", "--config", CONFIG, "--workdir", "/run", "--dry-run", *flags]) == 2
    written = capsys.readouterr()
    assert said in written.err
    assert "abcdef" not in written.err + written.out


@pytest.mark.parametrize("setting", ["TOKENIZERS_PARALLELISM=false", "MAX_TOKENS=3", "MONKEY=1", "URL=gs://a@b/c"])
def test_what_only_sounds_like_a_secret_is_let_through(setting, capsys):
    flags = ["--config", CONFIG, "--workdir", "/run", "--dry-run", "--env", setting]
    assert cli.main(["launch", "slurm", *flags]) == 0
    assert f"export {setting}\n" in capsys.readouterr().out
