"""The configuration is swapped in when valid and kept when not."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from api_world import assistant, document

from assistant_api.tenant_config import ActiveConfig, NotConfiguredError, TenantConfigHolder
from assistant_crds import parts
from assistant_crds.contracts import ApiKeyConfig, TenantConfig, encode


class Volume:
    """A folder that changes as the kubelet changes a ConfigMap volume: by one symlink swap."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "tenant.json"
        self.version = 0

    def write(self, content: bytes) -> None:
        self.version += 1
        data = self.folder / f"..{self.version}"
        data.mkdir()
        (data / "tenant.json").write_bytes(content)
        fresh = self.folder / "..data_tmp"
        fresh.symlink_to(data.name)
        fresh.rename(self.folder / "..data")
        if not self.path.is_symlink():
            self.path.symlink_to("..data/tenant.json")


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    return Volume(tmp_path)


def named(*names: str) -> TenantConfig:
    return document(assistants=[assistant(name) for name in names])


def test_nothing_is_served_before_the_first_document(volume: Volume) -> None:
    """A pod without configuration says so instead of guessing."""
    holder = TenantConfigHolder(volume.path)
    assert holder.load() is None
    assert holder.generation == ""
    assert "cannot be read" in (holder.problem or "")
    with pytest.raises(NotConfiguredError):
        _ = holder.current


def test_a_document_is_indexed_by_name(volume: Volume) -> None:
    """Requests look assistants and knowledge bases up by name."""
    volume.write(encode(document()))
    holder = TenantConfigHolder(volume.path)
    holder.load()
    active_config = holder.current
    assert set(active_config.assistants) == {"support", "plain"}
    assert [base.name for base in active_config.knowledge_bases_of(active_config.assistants["support"])] == ["handbook"]
    assert active_config.knowledge_bases_of(active_config.assistants["plain"]) == []
    assert holder.problem is None
    assert holder.generation == active_config.document.generation != ""


def test_a_knowledge_base_that_is_gone_is_left_out(volume: Volume) -> None:
    """An assistant may name one that was just deleted."""
    active_config = ActiveConfig.of(document(knowledge_bases=[]))
    assert active_config.knowledge_bases_of(active_config.assistants["support"]) == []
    assert volume.version == 0


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b'{"tenant": 1}',
        encode(document(api_keys=[ApiKeyConfig(name="bad", sha256="not hexadecimal")])),
    ],
)
def test_a_broken_document_changes_nothing_and_is_reported(volume: Volume, broken: bytes) -> None:
    """What was served goes on being served, whatever comes."""
    volume.write(encode(named("first")))
    holder = TenantConfigHolder(volume.path)
    holder.load()
    before = holder.current
    volume.write(broken)
    assert holder.load() is None
    assert holder.current is before
    assert "not a valid configuration" in (holder.problem or "")
    volume.write(encode(named("second")))
    assert holder.load() is not None
    assert list(holder.current.assistants) == ["second"]
    assert holder.problem is None


def test_a_document_of_a_newer_operator_is_understood(volume: Volume) -> None:
    """Unknown members are ignored, so that the operator can be upgraded first."""
    volume.write(encode(document()).replace(b'{"apiKeys"', b'{"aNewMember":{"x":1},"apiKeys"'))
    holder = TenantConfigHolder(volume.path)
    assert holder.load() is not None


def test_the_same_generation_is_not_taken_twice(volume: Volume) -> None:
    """A refreshed volume with the same content tells no subscriber."""
    volume.write(encode(document()))
    holder = TenantConfigHolder(volume.path)
    assert holder.load() is not None
    volume.write(encode(document()))
    assert holder.load() is None


async def test_a_change_is_served_within_half_a_second(volume: Volume) -> None:
    """Subscribers hear of it; one that fails does not keep the others from the news."""
    volume.write(encode(named("first")))
    holder = TenantConfigHolder(volume.path)
    heard: asyncio.Queue[ActiveConfig] = asyncio.Queue()

    def fail(_served: ActiveConfig) -> None:
        raise RuntimeError("subscriber broken")

    holder.subscribe(fail)
    holder.subscribe(heard.put)
    await holder.start()
    try:
        assert list(holder.current.assistants) == ["first"]
        volume.write(encode(named("second")))
        active_config = await asyncio.wait_for(heard.get(), 0.5)
        assert list(active_config.assistants) == ["second"]
        assert holder.current is active_config
    finally:
        await holder.stop()


async def test_a_file_that_vanishes_and_comes_back_is_read_again(volume: Volume) -> None:
    """A moment without the file is survived."""
    volume.write(encode(named("first")))
    holder = TenantConfigHolder(volume.path)
    holder.load()
    volume.path.unlink()
    assert holder.load() is None
    assert list(holder.current.assistants) == ["first"]
    volume.write(encode(named("second")))
    holder.load()
    assert list(holder.current.assistants) == ["second"]
    assert holder.problem is None


def test_a_configuration_in_parts_is_served_once_all_are_there(volume: Volume, tmp_path: Path) -> None:
    """While a file is missing, or is of another generation, the former configuration stays in use."""
    large = document(assistants=[assistant(f"a{number}", instructions="x" * 32_768) for number in range(80)])
    files = parts.split(large)
    assert len(files) == 3
    volume.write(encode(named("first")))
    holder = TenantConfigHolder(volume.path)
    holder.load()
    volume.write(files[0])
    assert holder.load() is None
    assert "part-1.json cannot be read" in (holder.problem or "")
    assert list(holder.current.assistants) == ["first"]
    (tmp_path / "part-1.json").write_bytes(files[1])
    (tmp_path / "part-2.json").write_bytes(files[1])
    assert holder.load() is None
    assert "part-2.json is of another generation" in (holder.problem or "")
    (tmp_path / "part-2.json").write_bytes(files[2])
    active_config = holder.load()
    assert active_config is not None
    assert len(active_config.assistants) == 80
    assert holder.problem is None
