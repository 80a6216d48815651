"""The stand-in's image."""

from __future__ import annotations

import ast
import re
from pathlib import Path

DEMO = Path(__file__).parents[3] / "tools" / "demo"
PACKAGE = "assistant_demo"


def modules_of(name: str, found: set[str]) -> set[str]:
    """Return a module of the demo and all that it imports of the demo."""
    if name not in found:
        found.add(name)
        for node in ast.walk(ast.parse((DEMO / PACKAGE / f"{name}.py").read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{PACKAGE}."):
                modules_of(str(node.module).removeprefix(f"{PACKAGE}."), found)
    return found


def test_it_holds_the_modules_that_the_model_server_needs_and_no_others() -> None:
    """They are copied by name, so that a change of the demo's other modules makes no new image."""
    copied = re.findall(rf"tools/{DEMO.name}/{PACKAGE}/(\w+)\.py", (DEMO / "Dockerfile").read_text())
    assert sorted(copied) == sorted({"__init__"} | modules_of("model_server", set()))
