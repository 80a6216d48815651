"""The tenant's configuration: read from the mounted document, swapped in while requests run.

A ConfigMap volume changes by one symlink swap, so the file is compared by the identity of what the path leads to.
Only a document that decodes replaces the one in use; a broken one is reported and the former one stays.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import msgspec

from assistant_crds import parts
from assistant_crds.contracts import AssistantConfig, KnowledgeBaseConfig, TenantConfig, UnavailableAssistant
from assistant_observability import logs, metrics

POLL_INTERVAL_SECONDS = 0.25
MAX_INLINE_DECODE_BYTES = 200_000

_log = logs.logger(__name__)

Subscriber = Callable[["ActiveConfig"], Awaitable[None] | None]
FileIdentity = tuple[int, int, int]  # inode, modification time (ns), size


@dataclass(frozen=True, slots=True)
class ActiveConfig:
    """One document with the look-ups that every request needs. Immutable: a request keeps the one it started with."""

    document: TenantConfig
    assistants: Mapping[str, AssistantConfig]
    knowledge_bases: Mapping[str, KnowledgeBaseConfig]
    unavailable: Mapping[str, UnavailableAssistant]
    api_key_digests: Mapping[str, bytes]  # name of the key -> SHA-256

    @classmethod
    def of(cls, document: TenantConfig) -> ActiveConfig:
        """Index `document`; ValueError when a key's digest is not hexadecimal."""
        return cls(
            document=document,
            assistants=MappingProxyType({assistant.name: assistant for assistant in document.assistants}),
            knowledge_bases=MappingProxyType({base.name: base for base in document.knowledge_bases}),
            unavailable=MappingProxyType({absent.name: absent for absent in document.unavailable}),
            api_key_digests=MappingProxyType({key.name: bytes.fromhex(key.sha256) for key in document.api_keys}),
        )

    def knowledge_bases_of(self, assistant: AssistantConfig) -> list[KnowledgeBaseConfig]:
        """Return the knowledge bases of an assistant; one that is not (or no longer) configured is left out."""
        return [self.knowledge_bases[name] for name in assistant.knowledge_bases if name in self.knowledge_bases]


class NotConfiguredError(Exception):
    """No valid configuration has been seen yet."""


class TenantConfigHolder:
    """Holds the configuration in use and replaces it when the file changes.

    `current` raises `NotConfiguredError` until the first valid document; `problem` says why the newest document
    on disk is not the one in use (None when it is).
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._active: ActiveConfig | None = None
        self._seen: FileIdentity | None = None
        self._subscribers: list[Subscriber] = []
        self._task: asyncio.Task[None] | None = None
        self.problem: str | None = "not loaded yet"

    @classmethod
    def fixed(cls, document: TenantConfig) -> TenantConfigHolder:
        """Return a holder of a document that never changes, for tests and tools."""
        holder = cls(Path("/nonexistent"))
        holder.replace(document)
        return holder

    @property
    def current(self) -> ActiveConfig:
        """The configuration in use."""
        if self._active is None:
            raise NotConfiguredError(self.problem or "not loaded yet")
        return self._active

    @property
    def generation(self) -> str:
        """The generation in use, or "" before the first one."""
        return self._active.document.generation if self._active else ""

    @property
    def namespace(self) -> str:
        """The tenant's namespace, or "" before the first configuration."""
        return self._active.document.tenant.namespace if self._active else ""

    @property
    def allowed_origins(self) -> Sequence[str]:
        """Origins of web pages whose scripts may call; none before the first configuration."""
        return self._active.document.allowed_origins if self._active else ()

    def subscribe(self, subscriber: Subscriber) -> None:
        """Call `subscriber` with each configuration that comes into use from now on."""
        self._subscribers.append(subscriber)

    def replace(self, document: TenantConfig) -> ActiveConfig:
        """Put `document` into use at once, without telling subscribers."""
        self._active = ActiveConfig.of(document)
        self.problem = None
        return self._active

    def load(self) -> ActiveConfig | None:
        """Read the file if it is another than the one seen last; return what came into use, or None.

        Never raises for a missing or broken file: that is told in `problem`.
        """
        try:
            found = self._path.stat()
            identity = (found.st_ino, found.st_mtime_ns, found.st_size)
            if identity == self._seen:
                return None
            content = self._path.read_bytes()
        except OSError as error:
            self._report(f"{self._path.name} cannot be read: {error.strerror}")
            self._seen = None
            return None
        self._seen = identity
        try:
            document = parts.join(content, lambda name: self._path.with_name(name).read_bytes())
            active_config = ActiveConfig.of(document)
        except parts.IncompleteError as error:
            # The kubelet swaps all files at once, but may have seen some of the ConfigMaps earlier than others.
            self._report(f"{self._path.name} is not complete yet: {error}")
            self._seen = None
            return None
        except (msgspec.MsgspecError, ValueError) as error:
            metrics.CONFIG_RELOADS.labels("invalid").inc()
            self._report(f"{self._path.name} is not a valid configuration: {error}")
            return None
        self.problem = None
        if self._active is not None and self._active.document.generation == document.generation:
            return None
        self._active = active_config
        metrics.CONFIG_RELOADS.labels("loaded").inc()
        _log.info(
            "configuration in use",
            generation=document.generation,
            assistants=len(document.assistants),
            knowledge_bases=len(document.knowledge_bases),
        )
        return active_config

    async def start(self) -> None:
        """Load the file and watch it until `stop`."""
        self.load()
        self._task = asyncio.create_task(self._watch(), name="tenant-config")

    async def stop(self) -> None:
        """End the watch."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(POLL_INTERVAL_SECONDS)
            found = self._identity()
            if found == self._seen is not None:
                continue
            # A large document is decoded beside the event loop: requests run on.
            is_large = found is not None and found[2] > MAX_INLINE_DECODE_BYTES
            active_config = await asyncio.to_thread(self.load) if is_large else self.load()
            if active_config is not None:
                await self._notify(active_config)

    def _identity(self) -> FileIdentity | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return (found.st_ino, found.st_mtime_ns, found.st_size)

    async def _notify(self, active_config: ActiveConfig) -> None:
        for subscriber in self._subscribers:
            try:
                result = subscriber(active_config)
                if inspect.isawaitable(result):
                    await result
            except Exception:  # noqa: BLE001  one subscriber must not keep the others from the news
                _log.exception("a subscriber failed on the new configuration")

    def _report(self, problem: str) -> None:
        if problem != self.problem:
            _log.warning("configuration not taken over", problem=problem)
        self.problem = problem
