"""Entry of `python -m assistant_cluster`."""

import sys

from assistant_cluster.cli import main

sys.exit(main())
