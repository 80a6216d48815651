#!/usr/bin/env bash
# Package:  pytest-xdist==3.8.0 with pytest==9.2.0
# Expected: tests with the same mark `xdist_group` run in one worker under `--dist loadgroup`. Source: the
#           documentation of pytest-xdist, "Running tests across multiple CPUs": "Tests are grouped by the xdist_group
#           mark. Groups are distributed to available workers as whole units."
# Seen:     they are shared out over the workers as if they had no mark, without a warning. `--dist loadfile`, of the
#           same tests, is obeyed.
# Here:     tests/e2e/conftest.py has a scheduler of its own, as those tests share one cluster.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --root-user-action ignore --no-compile --no-warn-conflicts \
    --target "$folder/lib" pytest==9.2.0 pytest-xdist==3.8.0
mkdir "$folder/tests"
cat >"$folder/tests/test_group.py" <<'END'
import os
import pathlib
import time

import pytest


@pytest.mark.xdist_group("one")
@pytest.mark.parametrize("number", range(12))
def test_member(number):
    time.sleep(0.1)
    pathlib.Path(os.environ["PYTEST_XDIST_WORKER"]).touch()
END

# How many of two workers were given tests.
workers() {
    mkdir "$folder/$1"
    (cd "$folder/$1" && PYTHONPATH=$folder/lib python3 -m pytest -qq -p no:cacheprovider --rootdir "$folder/tests" \
        --numprocesses 2 --dist "$1" "$folder/tests" >/dev/null)
    find "$folder/$1" -name 'gw*' | wc -l
}

by_file=$(workers loadfile)
by_group=$(workers loadgroup)
echo "expected: 1 worker has the tests of one group; seen: $by_group (of one file: $by_file)"
[ "$by_file $by_group" = "1 2" ] || { echo "changed: groups are no longer split over workers" >&2; exit 1; }
