"""The one error of the demo's commands."""


class DemoError(Exception):
    """Something a person can act on; the message ends with the next step."""
