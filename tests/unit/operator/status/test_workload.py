"""Deployments and pods in words a person can act on."""

import pytest
from operator_objects import deployment, pod

from assistant_crds import naming
from assistant_crds.conditions import Reason
from assistant_operator.status.workload import availability, is_ready, replicas, running

API = ("Deployment", naming.API)


def container(ready=False, last=None, **state):
    return {"name": "assistant-api", "image": "i:1", "ready": ready, "state": state, "lastState": last or {}}


def result(*containers, **changes):
    return availability({API: deployment(**changes)}, [pod(containerStatuses=list(containers))], [naming.API])


def test_available_pods_are_available():
    """Enough pods, none of them in trouble."""
    assert result(container(ready=True, running={})).reason is Reason.AVAILABLE


def test_a_missing_or_unfinished_deployment_is_progressing():
    """What is on its way says how far it is."""
    assert availability({}, [], [naming.API]).reason is Reason.PROGRESSING
    assert "0 of 2" in result(replicas=2, available=0).message


@pytest.mark.parametrize("reason", ["ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"])
def test_an_image_that_cannot_be_pulled_is_told_with_the_same_words_throughout(reason):
    """The kubelet alternates between two reasons; the message must not, or the status would be written for ever."""
    found = result(container(waiting={"reason": reason, "message": "Back-off 10s"}))
    assert found.reason is Reason.IMAGE_PULL_FAILED
    assert found.message == result(container(waiting={"reason": "ErrImagePull"})).message
    assert "assistant-api-1" in found.message
    assert "i:1" in found.message


def test_a_crashing_container_is_told_with_the_same_words_throughout():
    """Between two crashes the container waits, runs and ends; the message stays."""
    ended = {"terminated": {"exitCode": 3, "reason": "Error"}}
    states = [
        container(terminated=ended["terminated"]),
        container(last=ended, waiting={"reason": "CrashLoopBackOff", "message": "back-off 20s restarting"}),
        container(last=ended, running={}),
    ]
    found = [result(state) for state in states]
    assert {item.reason for item in found} == {Reason.CONTAINER_FAILING}
    assert len({item.message for item in found}) == 1
    assert "exit code 3" in found[0].message
    assert "kubectl logs assistant-api-1" in found[0].message


def test_a_container_that_crashed_once_and_is_ready_again_is_well():
    """An old crash is history."""
    ended = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
    assert result(container(ready=True, last=ended, running={})).is_true


def test_a_container_that_cannot_be_made_repeats_the_kubelets_words():
    """A missing Secret or a wrong user is in the kubelet's message."""
    found = result(container(waiting={"reason": "CreateContainerConfigError", "message": 'secret "x" not found'}))
    assert 'secret "x" not found' in found.message


def test_a_pod_that_fits_nowhere_is_told():
    """The scheduler's words are passed on."""
    waiting = pod(conditions=[{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no"}])
    assert availability({API: deployment()}, [waiting], [naming.API]).reason is Reason.UNSCHEDULABLE


def test_pods_that_may_not_be_created_are_told():
    """A quota or an admission rule shows on the Deployment only."""
    refused = {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota"}
    found = availability({API: deployment(available=0, conditions=[refused])}, [], [naming.API])
    assert (found.reason, "exceeded quota" in found.message) == (Reason.APPLY_FAILED, True)


def test_a_failing_new_pod_counts_while_old_ones_serve():
    """During a roll-out that cannot succeed the service is up; someone has to mend it all the same."""
    bad = pod("assistant-api-2", containerStatuses=[container(waiting={"reason": "ErrImagePull"})])
    good = pod(containerStatuses=[container(ready=True, running={})])
    assert availability({API: deployment()}, [good, bad], [naming.API]).reason is Reason.IMAGE_PULL_FAILED


def test_pods_on_their_way_out_do_not_count():
    """What is being deleted may fail as it likes, and is not asked anything."""
    leaving = pod(containerStatuses=[container(waiting={"reason": "ErrImagePull"})])
    leaving["metadata"]["deletionTimestamp"] = "2026-11-23T12:00:00Z"
    assert availability({API: deployment()}, [leaving], [naming.API]).is_true
    assert running([leaving], naming.API) == []


def test_the_worker_counts_where_it_is_wanted():
    """A knowledge base needs the worker too."""
    owned = {API: deployment(), ("Deployment", naming.WORKER): deployment(naming.WORKER, available=0)}
    assert availability(owned, [], [naming.API]).is_true
    assert availability(owned, [], [naming.API, naming.WORKER]).reason is Reason.PROGRESSING


def test_pods_that_run_are_asked():
    """Only running pods of the component with an address are asked, ready or not."""
    pods = [pod("a"), pod("b", component=naming.WORKER), pod("c", phase="Pending"), pod("d", podIP="")]
    assert [item["metadata"]["name"] for item in running(pods, naming.API)] == ["a"]
    assert is_ready(pod())
    assert not is_ready(pod(ready=False))
    assert replicas({API: deployment(replicas=3, available=2)}) == (2, 3)
