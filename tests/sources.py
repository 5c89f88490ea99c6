"""The files of the repository that tests hold to rules: modules of the product by name, and pages."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = [
    ROOT / name
    for name in (
        "topics/clipper_topics",
        "clipper_stream",
        "agents/clipper_agents",
        "gateway/clipper_gateway",
        "loadgen/clipper_loadgen",
    )
]
MODULES = {
    ".".join([folder.name, *path.relative_to(folder).with_suffix("").parts]).removesuffix(".__init__"): path
    for folder in FOLDERS
    for path in sorted(folder.rglob("*.py"))
}
PAGES = sorted(
    page
    for page in [
        *ROOT.glob("*.md"),
        *(page for name in ("docs", "benchmarks", "examples") for page in (ROOT / name).rglob("*.md")),
    ]
    if "node_modules" not in page.parts
)


def relative(path: Path) -> str:
    """The path as seen from the root of the repository."""
    return str(path.relative_to(ROOT))
