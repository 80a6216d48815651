"""One tenant, once: look, judge, make the stores and objects be as wanted, ask whether it works, report."""
