"""One operator of whichever checkout is on PYTHONPATH, for `measure.py`: `operator_main.py POD_PORT`."""

import asyncio
import sys

from assistant_observability import logs
from assistant_operator import config
from assistant_operator.main import Operator

if __name__ == "__main__":
    settings = config.load()
    logs.configure("assistant-operator", "console", "WARNING")
    sys.exit(asyncio.run(Operator(settings, int(sys.argv[1])).run()))
