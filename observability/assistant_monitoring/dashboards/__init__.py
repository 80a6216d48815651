"""The five views for Grafana 10 and newer, worst first: fleet, tenant, models, knowledge, platform."""
