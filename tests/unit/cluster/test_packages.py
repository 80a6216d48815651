"""Debian packages: what is missing, what is said, what is left alone."""

import os
import subprocess
from pathlib import Path

import pytest
from cluster_programs import Programs

from assistant_cluster import packages
from assistant_cluster.errors import ClusterError
from assistant_cluster.packages import enabled_units, ensure_packages, missing, no_service_starts
from assistant_cluster.progress import Progress

QUIET = Progress(quiet=True)
NOT_ROOT = os.geteuid() != 0


@pytest.fixture
def debian(programs: Programs, tmp_path: Path) -> Programs:
    """A Debian on which only `runc` is installed; packages are installed by a file with their name."""
    (tmp_path / "installed").mkdir()
    (tmp_path / "installed" / "runc").touch()
    programs.add(
        "dpkg-query",
        f"for name; do :; done; [ -e {tmp_path}/installed/$name ] && printf installed || {{ echo none >&2; exit 1; }}",
    )
    return programs


def test_only_what_is_missing_counts(debian: Programs) -> None:
    """Installed packages are not touched."""
    assert missing(["runc", "containerd"]) == ["containerd"]


def test_nothing_is_done_when_nothing_is_missing(debian: Programs) -> None:
    """A second `up` does not even ask apt."""
    ensure_packages(["runc"], QUIET, purpose="the node")
    assert not any(call.startswith("apt-get") for call in debian.calls)


@pytest.mark.skipif(NOT_ROOT, reason="only root installs packages")
def test_it_says_what_it_installs_before_it_does(debian: Programs, capsys: pytest.CaptureFixture[str]) -> None:
    """Names and purpose come first, and recommended packages stay away."""
    debian.add("apt-get")
    ensure_packages(["runc", "containerd", "ipset"], Progress(), purpose="the node")
    assert "Installing Debian packages for the node: containerd ipset" in capsys.readouterr().out
    (call,) = [call for call in debian.calls if call.startswith("apt-get")]
    assert call.startswith("apt-get install -y")
    assert call.endswith("containerd ipset")
    assert "--no-install-recommends" in call


@pytest.mark.skipif(NOT_ROOT, reason="only root installs packages")
def test_stale_package_lists_are_renewed_once(debian: Programs, tmp_path: Path) -> None:
    """A fresh machine has no lists: install fails, update, install again."""
    debian.add("apt-get", f'[ "$1" = update ] && touch {tmp_path}/lists; [ -e {tmp_path}/lists ]')
    ensure_packages(["ipset"], QUIET, purpose="the node")
    assert [call.split()[1] for call in debian.calls if call.startswith("apt-get")] == ["install", "update", "install"]


@pytest.mark.skipif(NOT_ROOT, reason="only root installs packages")
def test_apts_error_reaches_the_user(debian: Programs) -> None:
    """What apt printed is the reason."""
    debian.add("apt-get", "echo 'E: Unable to locate package ipset' >&2; exit 100")
    with pytest.raises(ClusterError, match="Unable to locate package ipset"):
        ensure_packages(["ipset"], QUIET, purpose="the node")


def test_no_service_is_started_by_an_installation(tmp_path: Path) -> None:
    """Debian's policy program says no meanwhile, and is gone afterwards, also after a failure."""
    policy = tmp_path / "policy-rc.d"
    codes = []

    def install() -> None:
        with no_service_starts(policy):
            codes.append(subprocess.run([policy], check=False).returncode)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        install()
    assert codes == [101]
    assert not policy.exists()


def test_a_policy_of_the_machines_owner_is_kept(tmp_path: Path) -> None:
    """It is not ours to change."""
    policy = tmp_path / "policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 104\n")
    with no_service_starts(policy):
        pass
    assert policy.read_text() == "#!/bin/sh\nexit 104\n"


@pytest.mark.skipif(NOT_ROOT, reason="only root installs packages")
def test_no_service_starts_at_the_next_boot(debian: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the installation enabled is disabled again; what was enabled before stays."""
    wants = tmp_path / "system" / "multi-user.target.wants"
    wants.mkdir(parents=True)
    (wants / "ssh.service").touch()
    debian.add("apt-get", f"touch {wants}/etcd.service")
    debian.add("systemctl")
    monkeypatch.setattr(packages, "enabled_units", lambda: enabled_units(tmp_path / "system"))
    ensure_packages(["etcd-server"], QUIET, purpose="the node")
    assert [call for call in debian.calls if call.startswith("systemctl")] == ["systemctl disable --quiet etcd.service"]


def test_a_service_that_stays_enabled_is_named(debian: Programs, capsys: pytest.CaptureFixture[str]) -> None:
    """The installation goes on; what systemctl printed is said."""
    debian.add("systemctl", "echo 'Access denied' >&2; exit 1")
    packages.disable_units({"etcd.service"}, Progress())
    assert "systemctl disable --quiet etcd.service` failed: Access denied" in capsys.readouterr().out
