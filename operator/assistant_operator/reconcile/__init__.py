"""The steps that reconcile one tenant: gather, resolve, write stores and objects, probe, report."""
