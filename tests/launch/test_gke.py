"""The JobSet of `umit launch gke`, field by field, and as a whole against the schema of the JobSet operator.

UMIT_JOBSET_CRD names the file of its custom resource definition (jobset.x-k8s.io_jobsets.yaml of a release).
"""

import os
import pathlib

import pytest
import yaml

from tests.launch.rendered import CONFIG, dry_run
from tests.launch.structural_schema import problems

RUN = ("gke", "--config", CONFIG, "--workdir", "gs://bucket/run", "--image", "europe-docker.pkg.dev/p/umit:1")
TWO_SLICES = ("--topology", "v5e-256", "--slices", "2", "--config.mesh.data=2")
ALL = (
    "--mount",
    "lustre:/data",
    "--priority",
    "high",
    "--service-account",
    "trainer",
    "--namespace",
    "team",
    "--env",
    "A=$(B)",
    "--secret",
    "TOKEN",
)


@pytest.fixture
def jobset(capsys):
    def render(*flags):
        _, files = dry_run(capsys, *RUN, *flags)
        (text,) = files.values()
        return yaml.safe_load(text)

    return render


def test_a_slice_is_a_job_of_one_pod_a_host_on_one_node_pool(jobset):
    found = jobset(*TWO_SLICES, "--name", "big")
    assert found["metadata"]["name"] == "big"
    assert found["metadata"]["annotations"] == {
        "alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"
    }
    (jobs,) = found["spec"]["replicatedJobs"]
    job = jobs["template"]["spec"]
    assert (jobs["replicas"], job["parallelism"], job["completions"]) == (2, 64, 64)
    assert job["completionMode"] == "Indexed"  # GKE tells a pod its place in the slice by it
    pod = job["template"]["spec"]
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
        "cloud.google.com/gke-tpu-topology": "16x16",
    }
    assert pod["containers"][0]["resources"]["limits"] == {"google.com/tpu": 4}


@pytest.mark.parametrize("flags", [(), ("--queue", "team")])
def test_kueue_admits_it_through_the_queue_that_is_named(jobset, flags):
    labels = jobset("--topology", "v5e-4", *flags)["metadata"]["labels"]
    assert labels == {"kueue.x-k8s.io/queue-name": flags[1] if flags else "multislice-queue"}


def test_a_pod_has_room_for_the_batches_of_its_data_workers(jobset):
    pod = jobset("--topology", "v5e-4")["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    (volume,) = [volume["name"] for volume in pod["volumes"] if volume.get("emptyDir") == {"medium": "Memory"}]
    assert {"name": volume, "mountPath": "/dev/shm"} in pod["containers"][0]["volumeMounts"]


def test_nodes_can_be_chosen_further(jobset):
    spec = jobset("--topology", "v5e-4", "--node-selector", "cloud.google.com/gke-spot=true")["spec"]
    selector = spec["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]["nodeSelector"]
    assert selector["cloud.google.com/gke-spot"] == "true"
    assert len(selector) == 3


def test_without_a_queue_kueue_has_no_part_in_it(jobset):
    assert "labels" not in jobset("--topology", "v5e-4", "--queue", "")["metadata"]


def test_preempted_pods_start_again_for_ever_and_failed_ones_a_few_times(jobset):
    """A Job fails for PodFailurePolicy where its policy says so, and for BackoffLimitExceeded otherwise."""
    spec = jobset("--topology", "v5e-4", "--max-restarts", "5")["spec"]
    failure = spec["failurePolicy"]
    (rule,) = failure["rules"]
    assert (failure["maxRestarts"], failure["restartStrategy"]) == (5, "BlockingRecreate")
    assert (rule["action"], rule["onJobFailureReasons"]) == ("RestartJobSetAndIgnoreMaxRestarts", ["PodFailurePolicy"])
    job = spec["replicatedJobs"][0]["template"]["spec"]
    disrupted, saved = job["podFailurePolicy"]["rules"]
    assert disrupted == {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    assert saved["action"] == "FailJob"
    assert saved["onExitCodes"] == {"containerName": "umit", "operator": "In", "values": [75, 143]}
    pod = job["template"]["spec"]
    assert [container["name"] for container in pod["containers"]] == ["umit"]
    # One failed pod must fail the Job, and a pod that is restarted in place would look as if it had not failed.
    assert (job["backoffLimit"], pod["restartPolicy"]) == (0, "Never")


def test_a_pod_gets_its_grace_period_and_the_signal_itself(jobset):
    pod = jobset("--topology", "v5e-4", "--grace-seconds", "120")["spec"]["replicatedJobs"][0]["template"]["spec"]
    pod = pod["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] == 120
    assert pod["containers"][0]["command"][0] == "umit"  # no shell in between that would keep it


def test_the_definition_of_jobset_accepts_it_and_refuses_it_when_it_is_wrong(jobset):
    if not os.environ.get("UMIT_JOBSET_CRD"):
        pytest.skip("UMIT_JOBSET_CRD does not name the custom resource definition of JobSet")
    definition = yaml.safe_load(pathlib.Path(os.environ["UMIT_JOBSET_CRD"]).read_text())
    (version,) = definition["spec"]["versions"]
    schema = {**version["schema"]["openAPIV3Schema"], "required": ["apiVersion", "kind", "metadata", "spec"]}
    for flags in (TWO_SLICES, ("--topology", "tpu7x-16", *ALL)):
        found = jobset(*flags)
        assert found["apiVersion"] == f"{definition['spec']['group']}/{version['name']}"
        assert list(problems(found, schema)) == []
    found["spec"]["failurePolicy"]["rules"][0]["action"] = "Restart"
    found["spec"]["replicatedJobs"][0]["template"]["spec"]["parallelsm"] = 1
    found["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]["containers"][0]["command"] = "umit"
    del found["spec"]["replicatedJobs"][0]["name"]
    assert len(list(problems(found, schema))) == 4
