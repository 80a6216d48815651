"""The command line: `python -m assistant_cluster.images build|load|list|clean`."""

import argparse
import sys

from assistant_cluster import modes
from assistant_cluster.errors import ClusterError
from assistant_cluster.images import PLATFORM, STORES, build_and_load
from assistant_cluster.images.buildah import Buildah
from assistant_cluster.progress import Progress


def main() -> int:
    """Run one command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m assistant_cluster.images", description="The platform's images.")
    commands = parser.add_subparsers(required=True, metavar="command", dest="command")
    for name, text in (
        ("build", "build the images that are not built yet from the present sources"),
        ("load", "build, and put into the cluster what it lacks"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("parts", nargs="*", metavar="part", help=f"some of: {', '.join((*PLATFORM, *STORES))}")
        command.add_argument("--mode", choices=modes.MODES, help="which cluster (default: CLUSTER, or auto)")
    commands.add_parser("list", help="images built without Docker")
    commands.add_parser("clean", help="delete all images built without Docker, the base image too")
    options = parser.parse_args()
    try:
        if options.command in {"build", "load"}:
            references = build_and_load(options.parts or None, load=options.command == "load", mode=options.mode)
            print("\n".join(f"{name:<10}{reference}" for name, reference in references.items()))
        else:
            with Buildah(Progress(quiet=True)).exclusive() as buildah:
                if options.command == "clean":
                    buildah.remove_all()
                else:
                    print("\n".join(sorted(name for name in buildah.images() if "<none>" not in name)))
    except ClusterError as error:
        print(f"\nError: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted. Run it again: what was built so far is kept.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
