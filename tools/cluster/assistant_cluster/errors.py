"""The one error of this package, so that the command line can tell a person's problem from a defect of ours."""


class ClusterError(Exception):
    """Something a person can act on: the message says what was tried and what to do next."""
