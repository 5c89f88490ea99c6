"""The files of the repository that tests hold to rules: modules of the product by name, and pages."""

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = [
    *(ROOT / name / f"clipper_{name}" for name in ("topics", "agents", "gateway", "loadgen")),
    ROOT / "clipper_stream",
]
MODULES = {
    ".".join([folder.name, *path.relative_to(folder).with_suffix("").parts]).removesuffix(".__init__"): path
    for folder in FOLDERS
    for path in sorted(folder.rglob("*.py"))
}
PAGES = sorted(
    page
    for where in ("*.md", "docs/**/*.md", "benchmarks/**/*.md", "examples/**/*.md")
    for page in ROOT.glob(where)
    if not any(part == "node_modules" or part.startswith(".") for part in page.relative_to(ROOT).parts)
)


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def page_script(name):
    """The script of this name in `docs`, which writes a page of the reference."""
    spec = importlib.util.spec_from_file_location(name, ROOT / f"docs/{name}.py")
    script = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script
