"""`python -m assistant_api`: the tenant API as a process."""

from __future__ import annotations

import gc

import uvloop

from assistant_api import config as settings_module
from assistant_api.app import VERSION, create_app
from assistant_api.auth.accounts import Keys
from assistant_api.clients import connect
from assistant_api.config import Settings
from assistant_api.i18n import Catalogs
from assistant_api.server import MetricsApp, Shutdown, server, until_stopped
from assistant_api.tenant_config import TenantConfigHolder
from assistant_observability import logs, metrics, traces

SERVICE = "assistant-api"
# Nearly all that a request makes is freed by counting references; the collector finds little, however often it looks.
GC_THRESHOLDS = (20_000, 20, 20)


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM."""
    config = TenantConfigHolder(settings.config_file)
    catalogs = Catalogs.load(settings.locales_dir)
    app = create_app(config, connect(settings, config), catalogs, keys=Keys.of(settings))
    main = server(app, settings.host, settings.port, settings.shutdown_seconds, lifespan=True)
    side = server(MetricsApp(metrics.API), settings.host, settings.metrics_port, 1, lifespan=False)
    # What start-up made stays; collecting it again and again would only cost time.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    ending = Shutdown(app.drain, app.interrupt, settings.drain_seconds, settings.shutdown_seconds)
    await until_stopped(main, side, ending)


def main() -> None:
    """Run the process."""
    settings = settings_module.load()
    logs.configure(SERVICE, settings.log_format, settings.log_level)
    provider = traces.configure(SERVICE, VERSION)
    try:
        uvloop.run(serve(settings))
    finally:
        provider.shutdown()


if __name__ == "__main__":
    main()
