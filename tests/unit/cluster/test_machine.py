"""The record of what nodes change on a machine."""

import threading
from pathlib import Path

import pytest

from assistant_cluster.machine import Machine
from assistant_cluster.progress import Progress

QUIET = Progress(quiet=True)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "state")


def test_changes_are_undone_after_the_last_node_and_not_before(machine: Machine, tmp_path: Path) -> None:
    """A second node would lose its mount points and its way out if the first one took them along."""
    switch, folder = tmp_path / "forwarding", tmp_path / "var" / "kubelet"
    switch.write_text("0\n")
    with machine.lock(QUIET):
        node = tmp_path / "state" / "node-1"
        node.mkdir()
        machine.make_folders([str(folder)])
        machine.set_switch(switch, "1")
        machine.undo_after_the_last_node()
        assert (switch.read_text(), folder.is_dir()) == ("1", True)
        node.rmdir()
        machine.undo_after_the_last_node()
    assert switch.read_text() == "0"
    assert not folder.parent.exists()
    assert not (tmp_path / "state").exists()


def test_a_second_node_does_not_hide_the_former_values(machine: Machine, tmp_path: Path) -> None:
    """Another process, or a run after an interrupted one, adds to the record and keeps what was first."""
    switch = tmp_path / "forwarding"
    switch.write_text("0")
    with machine.lock(QUIET):
        machine.set_switch(switch, "1")
        switch.write_text("2")
        Machine(tmp_path / "state").set_switch(switch, "1")
        machine.undo_after_the_last_node()
    assert switch.read_text() == "0"


def test_what_was_there_before_stays(machine: Machine, tmp_path: Path) -> None:
    """A folder that existed, or that somebody filled since, is not removed."""
    (tmp_path / "theirs").mkdir()
    with machine.lock(QUIET):
        machine.make_folders([str(tmp_path / "theirs"), str(tmp_path / "ours")])
        (tmp_path / "ours" / "file").touch()
        machine.undo_after_the_last_node()
    assert (tmp_path / "theirs").is_dir()
    assert (tmp_path / "ours" / "file").exists()


def test_a_broken_record_stops_nothing(machine: Machine, tmp_path: Path) -> None:
    """A machine that lost power while writing must still be able to start and stop nodes."""
    with machine.lock(QUIET):
        (tmp_path / "state" / "machine-changes.json").write_text("{")
        machine.make_folders([str(tmp_path / "new")])
        machine.undo_after_the_last_node()
    assert not (tmp_path / "new").exists()


def test_the_lock_is_held_by_one_at_a_time_even_when_its_file_goes(machine: Machine, tmp_path: Path) -> None:
    """`down` removes the lock's file; whoever waited for it must not share the machine with a third."""
    inside: list[str] = []
    first_may_go = threading.Event()
    first_is_in = threading.Event()

    def hold(name: str) -> None:
        with Machine(tmp_path / "state").lock(QUIET):
            inside.append(f"{name} in")
            if name == "first":
                first_is_in.set()
                first_may_go.wait(5)
            inside.append(f"{name} out")

    threads = [threading.Thread(target=hold, args=("first",))]
    threads[0].start()
    assert first_is_in.wait(5)
    threads += [threading.Thread(target=hold, args=(name,)) for name in ("second", "third")]
    for thread in threads[1:]:
        thread.start()
    first_may_go.set()
    for thread in threads:
        thread.join(5)
    assert len(inside) == 6
    assert [entry.split()[1] for entry in inside] == ["in", "out"] * 3
    assert not (tmp_path / "state").exists()
