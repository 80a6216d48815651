"""The API server that integration tests use: real behaviour, and nothing left of it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from assistant_cluster import processes
from assistant_cluster.apiserver import ApiServer, apiserver
from assistant_cluster.errors import ClusterError
from assistant_cluster.progress import wait_until
from assistant_cluster.scratch import scratch_folder

PROGRAM = """
import sys, time
from assistant_cluster.apiserver import apiserver
with apiserver() as server:
    print(server.folder, flush=True)
    {end}
"""


@pytest.fixture(scope="module")
def server() -> Iterator[ApiServer]:
    with apiserver() as running:
        yield running


def servers_of(folder: Path) -> list[int]:
    """Processes whose command line names this folder."""
    found = []
    for pid in processes.pids():
        try:
            words = (Path("/proc") / str(pid) / "cmdline").read_bytes()
        except OSError:
            continue
        if str(folder).encode() in words and processes.identify(pid):
            found.append(pid)
    return found


def test_it_signs_tokens_that_can_be_verified_with_its_published_keys(server: ApiServer) -> None:
    """TokenRequest and the issuer's discovery work without a controller."""
    server.run_kubectl("create", "serviceaccount", "robot")
    token = server.run_kubectl("create", "token", "robot", "--audience=assistant-gateway").strip()
    assert token.count(".") == 2
    discovery = json.loads(server.run_kubectl("get", "--raw", "/.well-known/openid-configuration"))
    assert discovery["issuer"] == server.issuer
    assert json.loads(server.run_kubectl("get", "--raw", "/openid/v1/jwks"))["keys"]


def test_rights_are_checked(server: ApiServer) -> None:
    """RBAC is on: a ServiceAccount without a Role may not read Secrets."""
    answer = subprocess.run(
        [*server.kubectl, f"--kubeconfig={server.kubeconfig}", "auth", "can-i", "get", "secrets",
         "--as=system:serviceaccount:default:nobody"],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert answer.stdout.strip() == "no"


def test_every_write_is_in_the_audit_log(server: ApiServer) -> None:
    """Tests count writes there."""
    server.run_kubectl("create", "configmap", "audited")
    entry = wait_until(
        lambda: next((line for line in server.audit_log.read_text().splitlines() if "configmaps/audited" in line
                      or '"name":"audited"' in line), None), seconds=5)  # fmt: skip
    assert entry is not None
    assert json.loads(entry)["verb"] == "create"


def test_kubectls_error_is_told(server: ApiServer) -> None:
    """Its own words, not a traceback."""
    with pytest.raises(ClusterError, match='pods "absent" not found'):
        server.run_kubectl("get", "pod", "absent")


@pytest.mark.parametrize("end", ["raise KeyboardInterrupt", "time.sleep(60)"])
def test_no_process_and_no_file_outlives_it(end: str) -> None:
    """Neither after Ctrl-C nor when the test run is killed: then the kernel ends the servers."""
    command = [sys.executable, "-c", PROGRAM.format(end=end)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as run:
        assert run.stdout is not None
        folder = Path(run.stdout.readline().strip())
        killed = "sleep" in end
        if killed:
            assert len(servers_of(folder)) == 2
            run.kill()
        run.wait(timeout=30)
    assert wait_until(lambda: not servers_of(folder), seconds=10)
    # A killed run cannot remove its temporary folder; nothing secret in it is of any use without the servers. The next
    # that makes one removes it, which a test beside this one may have done already.
    assert killed or not folder.parent.exists()
    with scratch_folder("next"):
        assert wait_until(lambda: not folder.parent.exists(), seconds=10)
