"""`python -m assistant_demo`: the commands behind `make demo`, `make observe` and `make down`."""

from __future__ import annotations

import argparse
import signal
import sys
from types import FrameType

from pydantic import ValidationError

from assistant_cluster import ClusterError
from assistant_demo import down, observe, up
from assistant_demo.errors import DemoError
from assistant_demo.settings import ModelSettings
from assistant_demo.terminal import RED, Terminal

ENVIRONMENT = """
environment:
  CLUSTER                    auto (default), kind, node, or current: the kube context you use now
  OPENAI_API_KEY             answer with OpenAI instead of the offline stand-in
  DEMO_MODEL_URL             answer with this OpenAI-compatible server, such as http://192.0.2.7:11434/v1; then also
                             DEMO_MODEL_NAME, DEMO_EMBEDDING_NAME, DEMO_EMBEDDING_DIMENSIONS, and if it needs one
                             DEMO_MODEL_KEY
  DEMO_EMBEDDING_NAME        without DEMO_MODEL_URL: stand-in-embedding, for hashed words in place of the small
                             multilingual model that the offline stand-in embeds with where it can
"""


def main() -> int:
    """Run a command; errors are told in a sentence, with the next step."""
    parser = argparse.ArgumentParser(
        prog="python -m assistant_demo",
        description="Bring the Assistant Platform up on this machine and ask an assistant a question.",
        epilog=ENVIRONMENT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="up | observe | down")
    start = commands.add_parser("up", help="bring everything up that is not up yet, and ask")
    start.add_argument("--no-question", action="store_true", help="stop before the question")
    watch = commands.add_parser("observe", help="start Prometheus beside the running demo, and make traffic")
    watch.add_argument("--minutes", type=float, default=3.0, help="how long to make traffic (3)")
    commands.add_parser("discover")  # what `observe` starts, of no use by itself
    commands.add_parser("down", help="take everything away again")
    arguments = parser.parse_args()
    terminal = Terminal()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        if arguments.command == "down":
            down.run(terminal)
        elif arguments.command == "observe":
            observe.run(terminal, arguments.minutes)
        elif arguments.command == "discover":
            observe.discover()
        else:
            up.run(terminal, ModelSettings().model(), ask=not arguments.no_question)
    except (DemoError, ClusterError) as error:
        terminal.line(terminal.styled(f"\n{error}", RED))
        return 1
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors())
        terminal.line(terminal.styled(f"\nThe environment is not understood: {wrong}", RED))
        return 2
    except KeyboardInterrupt:
        terminal.line("\nInterrupted. Nothing is broken: the same command goes on from here, `make down` cleans up.")
        return 130
    return 0


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
