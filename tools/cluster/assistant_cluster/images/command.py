"""Runs the programs that build images: output to a log, a time limit, and the end of the log in the error."""

import subprocess
from collections.abc import Mapping
from pathlib import Path

from assistant_cluster.errors import ClusterError

TAIL_LINES = 20


def run(
    command: list[str], *, seconds: float, log: Path | None = None, environment: Mapping[str, str] | None = None
) -> str:
    """Run to the end and return what was printed; raise `ClusterError` for a failure or after `seconds`."""
    title = " ".join(command[:3])
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if log else subprocess.PIPE,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except FileNotFoundError as error:
        raise ClusterError(f"{command[0]} is not installed.") from error
    except subprocess.TimeoutExpired as error:
        printed = error.output.decode(errors="replace") if isinstance(error.output, bytes) else error.output or ""
        raise ClusterError(f"`{title} …` took longer than {seconds / 60:.0f} min.{_keep(log, printed)}") from error
    output = done.stdout
    told = _keep(log, output)
    if done.returncode != 0:
        raise ClusterError(f"`{title} …` failed.{told or f' It said: {(done.stderr or output).strip()[-1500:]}'}")
    return output


def _keep(log: Path | None, output: str) -> str:
    """Write the log and return its end, ready to be appended to an error."""
    if log is None:
        return ""
    log.write_text(output)
    tail = "\n  ".join(output.splitlines()[-TAIL_LINES:])
    return f" Its log {log} ends with:\n  {tail}"
