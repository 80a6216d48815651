"""The chart of the custom resources carries the definitions of this room."""

from pathlib import Path

ROOT = Path(__file__).parents[3]
COPIES = ROOT / "charts" / "assistant-crds" / "files"


def test_the_chart_carries_the_definitions_of_the_crds_room():
    """Helm cannot reach outside of a chart, so the chart has copies; they must be equal."""
    sources = {path.name: path.read_text() for path in (ROOT / "crds").glob("*.yaml")}
    assert sources
    copied = {path.name: path.read_text() for path in COPIES.glob("*.yaml")}
    different = sorted(name for name in sources | copied if sources.get(name) != copied.get(name))
    assert not different, "run: cp crds/*.yaml charts/assistant-crds/files/"
