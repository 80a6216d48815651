"""Dashboards, objectives and alerts as code. A tool of this repository: no part of the platform imports it."""
