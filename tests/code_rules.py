"""Rules of the code as functions over parsed modules: each returns what breaks it, an empty list when nothing does."""

import ast
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

FIELD_NOUNS = frozenset({"batching", "caching", "combining", "logging", "streaming", "testing", "tracing", "string"})
"""Words of the field that end like a gerund or participle."""

IRREGULAR = frozenset({"kept", "told", "seen", "known", "given", "held", "sent", "met", "drawn"})

_REPLACED = """
asking looking kept told alike elsewhere ground way carrying reaching releasing ready_hosts learner learning recorder
rocks credit deciding places received framing pending beside unheard by_features tried least_of forgetting moments
shares comparing drifting truth coalescing allowed asked pieces given_up fitting suspects watching cores lifeline
provisions pinned again patiently composing facts following recent noting signing outpaced knock going_back
differences standings watched ways observing early waiting accepting parting walked walking settled concluding survey
tally courses fewest_moves connecting steward
"""
OLD_NAMES = frozenset(_REPLACED.split())
"""Module names that the glossary of this project replaced."""

SMALL_LINES = 60


@dataclass(frozen=True)
class Module:
    """A module of the repository.

    Attributes:
        name: Dotted, for example `clipper_stream.batching.aimd`.
        source: Its text.
    """

    name: str
    source: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.source)

    @property
    def stem(self) -> str:
        return self.name.rpartition(".")[2]

    @property
    def lines(self) -> int:
        return self.source.count("\n")


ROOT = Path(__file__).parents[1]
SOURCES = {
    "clipper_topics": ROOT / "topics/clipper_topics",
    "clipper_stream": ROOT / "clipper_stream",
    "clipper_agents": ROOT / "agents/clipper_agents",
    "clipper_gateway": ROOT / "gateway/clipper_gateway",
    "clipper_loadgen": ROOT / "loadgen/clipper_loadgen",
}


@cache
def product() -> dict[str, Module]:
    """Every module of the wheel, by its dotted name."""
    return {name: module for top, folder in SOURCES.items() for name, module in modules_below(top, folder).items()}


def modules_below(top: str, folder: Path) -> dict[str, Module]:
    """Every module of a folder, by its dotted name below `top`."""
    found = {}
    for path in sorted(folder.rglob("*.py")):
        name = ".".join([top, *path.relative_to(folder).with_suffix("").parts]).removesuffix(".__init__")
        found[name] = Module(name, path.read_text())
    return found


def imports_of(module: Module, known: Mapping[str, object]) -> Iterator[str]:
    """Names of known modules that the module imports, wherever in it."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            submodules = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name for name in submodules if name in known)
            if node.module in known and any(name not in known for name in submodules):
                yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)


def classes_of_one_name(modules: Iterable[Module]) -> list[str]:
    """Public classes whose name stands in more than one module."""
    places: defaultdict[str, list[str]] = defaultdict(list)
    for module in modules:
        for node in module.tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(module.name)
    return [f"{name}: {', '.join(where)}" for name, where in sorted(places.items()) if len(where) > 1]


def riddles(modules: Iterable[Module]) -> list[str]:
    """Modules named by a bare gerund or participle, or by a name that the glossary replaced."""
    return [module.name for module in modules if is_riddle(module.stem)]


def is_riddle(stem: str) -> bool:
    bare = "_" not in stem and (stem in IRREGULAR or re.search(r"[a-z]{2}(ing|ed)$", stem) is not None)
    return stem in OLD_NAMES or (bare and stem not in FIELD_NOUNS)


def imported_by_no_product(product: Mapping[str, Module], entry_points: Iterable[str]) -> list[str]:
    """Modules that nothing in the product imports, and that are no entry point."""
    used = {name for module in product.values() for name in imports_of(module, product)} | set(entry_points)
    packages = {name.rpartition(".")[0] for name in product}
    return [
        name
        for name, module in product.items()
        if name not in used | packages and '__name__ == "__main__"' not in module.source
    ]


def fragments(product: Mapping[str, Module], registered: Iterable[str]) -> list[str]:
    """Modules of under sixty lines that a single module imports, and that stand in no registry."""
    importers: defaultdict[str, set[str]] = defaultdict(set)
    for module in product.values():
        for name in imports_of(module, product):
            importers[name].add(module.name)
    packages = {name.rpartition(".")[0] for name in product}
    return [
        f"{name} ({module.lines} lines)"
        for name, module in product.items()
        if module.lines < SMALL_LINES and len(importers[name]) == 1 and name not in packages | set(registered)
    ]


def over_budget(lines: Mapping[str, int], budgets: Mapping[str, int]) -> list[str]:
    """Packages that have more lines than their budget, or none."""
    return [
        f"{package}: {count} lines, {budgets.get(package, 0)} allowed"
        for package, count in sorted(lines.items())
        if count > budgets.get(package, 0)
    ]


def long_test_names(modules: Iterable[Module], longest: int = 80) -> list[str]:
    """Tests whose name has more characters than a line of a report shows."""
    return [
        f"{module.name}::{node.name}"
        for module in modules
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and len(node.name) > longest
    ]


KAFKA_CLIENTS = frozenset({"AIOKafkaConsumer", "AIOKafkaProducer", "AIOKafkaAdminClient", "AIOKafkaClient"})


def built_kafka_clients(modules: Iterable[Module]) -> list[str]:
    """Calls of aiokafka's client classes, or calls that are handed one of them, by module and line."""
    return [
        f"{module.name}:{node.lineno} {name}"
        for module in modules
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call)
        for name in map(_last_name, (node.func, *node.args, *(keyword.value for keyword in node.keywords)))
        if name in KAFKA_CLIENTS
    ]


def _last_name(node: ast.expr) -> str:
    """`b` of `a.b` and of `b`; empty for any other expression."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


# --- one form of each idea ----------------------------------------------------------------------------------------
def decoders(modules: Iterable[Module]) -> dict[str, set[str]]:
    """Modules that build a decoder of a record, by the record's name.

    `Decoder(Record)`, `Codec(Record)` and `decode(value, type=Record)` are decoders.
    """
    found: defaultdict[str, set[str]] = defaultdict(set)
    for module in modules:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Call):
                for record in _decoded_records(node):
                    found[record].add(module.name)
    return dict(found)


def _decoded_records(call: ast.Call) -> Iterator[str]:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    given = [*call.args[:1]] if name in {"Decoder", "Codec"} else []
    given += [one.value for one in call.keywords if one.arg == "type" and name in {"Decoder", "decode"}]
    for one in given:
        yield from (node.id for node in ast.walk(one) if isinstance(node, ast.Name) and node.id[0].isupper())


def decoded_twice(modules: Iterable[Module]) -> list[str]:
    """Records of which more than one module builds a decoder."""
    return [
        f"{record}: {', '.join(sorted(where))}" for record, where in sorted(decoders(modules).items()) if len(where) > 1
    ]


def folded_outside(modules: Iterable[Module], folds: Mapping[str, str]) -> list[str]:
    """Modules that decode records of a topic that another module folds.

    Args:
        modules: What is looked at.
        folds: The module that folds, by the expression that decodes, for example `codec.changes.decode`.
    """
    return [
        f"{module.name}: {ast.unparse(node.func)}"
        for module in modules
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and folds.get(ast.unparse(node.func), module.name) != module.name
    ]


# --- where parts meet ------------------------------------------------------------------------------------------------
def callable_names(modules: Iterable[Module]) -> frozenset[str]:
    """Names that stand for something to call: aliases of `Callable`, and protocols with `__call__`."""
    found = {"Callable"}
    for module in modules:
        for node in module.tree.body:
            if isinstance(node, ast.ClassDef) and any(_is_function(one, "__call__") for one in node.body):
                if any(ast.unparse(base).startswith("Protocol") for base in node.bases):
                    found.add(node.name)
            elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                if ast.unparse(node.value).startswith("Callable["):
                    found.update(target.id for target in targets if isinstance(target, ast.Name))
    return frozenset(found)


def constructors_of_many_callables(modules: Iterable[Module], callables: Collection[str], most: int = 3) -> list[str]:
    """Classes whose constructor takes more callables than that: what they need is an object with a Protocol."""
    return [
        f"{module.name}.{node.name}"
        for module in modules
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ClassDef)
        and sum(_names_one(annotation, callables) for annotation in _taken(node)) > most
    ]


def _taken(node: ast.ClassDef) -> Iterator[ast.expr]:
    """Annotations of what the constructor takes: parameters of `__init__`, or the fields of a record."""
    init = next((one for one in node.body if _is_function(one, "__init__")), None)
    if isinstance(init, ast.FunctionDef):
        parameters = [*init.args.posonlyargs, *init.args.args, *init.args.kwonlyargs]
        yield from (one.annotation for one in parameters if one.annotation is not None)
    elif node.decorator_list or node.bases:
        yield from (one.annotation for one in node.body if isinstance(one, ast.AnnAssign) and one.value is None)


def _is_function(node: ast.stmt, name: str) -> bool:
    return isinstance(node, ast.FunctionDef) and node.name == name


def _names_one(annotation: ast.expr, callables: Collection[str]) -> bool:
    """Whether the annotation, or one side of its union, is something to call."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        annotation = ast.parse(annotation.value, mode="eval").body
    if isinstance(annotation, ast.BinOp):
        return _names_one(annotation.left, callables) or _names_one(annotation.right, callables)
    if isinstance(annotation, ast.Subscript):
        annotation = annotation.value
    name = annotation.attr if isinstance(annotation, ast.Attribute) else getattr(annotation, "id", None)
    return name in callables


def import_cycles(product: Mapping[str, Module]) -> list[str]:
    """Modules that import each other at their top, `TYPE_CHECKING` included; one line a cycle."""
    graph = {name: {*imports_of(_top_of(module), product)} - {name} for name, module in product.items()}
    reached = {name: _reached_from(name, graph) for name in graph}
    cycles = {frozenset(other for other in reached[name] if name in reached[other]) for name in graph}
    return [" <-> ".join(sorted(cycle)) for cycle in sorted(cycles, key=sorted) if cycle]


def _top_of(module: Module) -> Module:
    """The module without the bodies of its functions: an import there is no part of importing the module."""
    kept = [node for node in module.tree.body if isinstance(node, ast.Import | ast.ImportFrom | ast.If | ast.Try)]
    return Module(module.name, "\n".join(map(ast.unparse, kept)))


def _reached_from(start: str, graph: Mapping[str, set[str]]) -> set[str]:
    reached: set[str] = set()
    todo = [*graph[start]]
    while todo:
        name = todo.pop()
        if name not in reached:
            reached.add(name)
            todo += graph[name]
    return reached
