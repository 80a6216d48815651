"""All views, in the order in which one looks at them."""

from __future__ import annotations

from assistant_monitoring.dashboards import knowledge, models, platform, tenants

VIEWS = (tenants.FLEET, tenants.VIEW, models.VIEW, knowledge.VIEW, platform.VIEW)
