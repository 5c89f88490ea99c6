"""Rules that the code of the product holds; what a test finds breaks its rule."""

import ast
import re
from collections import Counter, defaultdict
from functools import cache
from graphlib import TopologicalSorter

from sources import MODULES, ROOT

from clipper_stream.models.registry import RUNTIMES
from clipper_stream.selection.registry import POLICIES

PRODUCT = {name: path.read_text() for name, path in MODULES.items()}
PACKAGES = {name.rpartition(".")[0] for name in PRODUCT}


@cache
def nodes(module):
    return list(ast.walk(ast.parse(PRODUCT[module])))


def calls():
    return ((module, node) for module in PRODUCT for node in nodes(module) if isinstance(node, ast.Call))


def last_name(node):
    """`b` of `a.b` and of `b`; empty for any other expression."""
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def imports_of(statements):
    found = set()
    for node in statements:
        if isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names | {node.module} if names - PRODUCT.keys() else names
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found & PRODUCT.keys()


# --- names and sizes ------------------------------------------------------------------------------------------------
BUDGETS = """
clipper_topics 3260
clipper_stream 355 batching 495 caching 180 client 1215 combining 180 drift 170 evaluation 3695 feedback 505 http 335
               models 2795 query 2515 selection 2005 sequential_testing 1680
clipper_agents 75 broker 650 cli 3540 control 1880 dead_letters 230 demo 605 examples 35 feedback 385 host 1260
               kafka 2470 observability 1200 replay 2095 rollout 1845 router 4155 settings 755 status 2725
               streaming 2340 supervisor 1725
clipper_gateway 3575 console 1580
clipper_loadgen 1030
"""
"""Lines of each package and of the packages in it: whoever adds a capability says here what it costs."""


def test_no_package_is_larger_than_its_budget():
    allowed, top = {}, ""
    for name, lines in re.findall(r"(\w+) (\d+)", BUDGETS):
        top = name if name.startswith("clipper_") else top
        allowed[name if name == top else f"{top}.{name}"] = int(lines)
    found = Counter()
    for name, text in PRODUCT.items():
        package = ".".join(name.split(".")[:2])
        found[package if package in PACKAGES else name.partition(".")[0]] += text.count("\n")
    assert {package: lines for package, lines in found.items() if lines > allowed.get(package, 0)} == {}


def test_no_class_name_stands_twice_in_the_product():
    names = Counter(re.findall(r"^class ([A-Za-z]\w*)", "\n".join(PRODUCT.values()), re.MULTILINE))
    assert [name for name, count in names.items() if count > 1] == []


FIELD_NOUNS = {"batching", "caching", "combining", "logging", "streaming", "testing", "tracing", "string"}
"""Words of the field that end like a gerund or participle."""
RIDDLES = """
kept told seen known given held sent met drawn alike elsewhere ground way ready_hosts learner recorder rocks credit
pieces given_up suspects cores lifeline provisions again patiently facts recent knock going_back differences standings
ways early survey tally courses fewest_moves steward beside unheard by_features least_of moments shares truth
"""
"""Irregular participles, and names of modules that the glossary of this project replaced."""


def test_no_module_has_a_name_that_is_a_riddle():
    """No bare gerund or participle either."""
    stems = {name.rpartition(".")[2] for name in PRODUCT}
    bare = {stem for stem in stems if "_" not in stem and re.search(r"[a-z]{2}(ing|ed)$", stem)}
    assert (bare | (stems & {*RIDDLES.split()})) - FIELD_NOUNS == set()


def test_no_test_has_a_name_of_more_than_a_hundred_characters():
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name in re.findall(r"def (test_\w+)", tests) if len(name) > 100] == []


# --- one place for each idea ----------------------------------------------------------------------------------------
ENTRY_POINTS = {
    "clipper_agents.cli.main",  # the command line program
    "clipper_topics.json_schema",  # of the scripts that write the schemas and the OpenAPI document
    "clipper_agents.examples.models",  # named as a URI, `clipper_agents.examples.models:sum_of_row`
}
"""Modules that users name, and no module of the product."""


def test_every_module_is_imported_by_the_product_and_a_small_one_by_two():
    """Unless a registry makes it reachable by a name: runtimes, policies, commands, and the registries themselves."""
    importers = Counter(name for module in PRODUCT for name in imports_of(nodes(module)))
    programs = {name for name, text in PRODUCT.items() if '__name__ == "__main__"' in text}
    assert PRODUCT.keys() - importers.keys() - PACKAGES - programs - ENTRY_POINTS == set()
    small = {name for name, text in PRODUCT.items() if text.count("\n") < 60 and importers[name] == 1}
    entries = {*RUNTIMES.values(), *POLICIES.values()}
    registered = {getattr(entry, "__module__", None) or getattr(entry, "__name__", "") for entry in entries}
    registered |= {name for name in PRODUCT if name.startswith("clipper_agents.cli.") or name.endswith(".registry")}
    assert small - PACKAGES - registered == set()


def test_kafka_clients_are_built_in_one_module_of_each_of_two_packages():
    """So that each has one set of settings; a call that is handed the class builds it too."""
    clients = {"AIOKafkaConsumer", "AIOKafkaProducer", "AIOKafkaAdminClient", "AIOKafkaClient"}
    building = set()
    for module, call in calls():
        given = (call.func, *call.args, *(keyword.value for keyword in call.keywords))
        building |= {module for node in given if last_name(node) in clients}
    assert building == {"clipper_stream.client.kafka", "clipper_agents.kafka.clients"}


def test_each_record_is_decoded_by_one_module():
    """`Decoder(Record)`, `Codec(Record)` and `decode(value, type=Record)` are decoders."""
    places = defaultdict(set)
    for module, call in calls():
        name = last_name(call.func)
        given = call.args[:1] if name in {"Decoder", "Codec"} else []
        given += [one.value for one in call.keywords if one.arg == "type" and name in {"Decoder", "decode"}]
        for node in (inner for each in given for inner in ast.walk(each)):
            if isinstance(node, ast.Name) and node.id[0].isupper():
                places[node.id].add(module)
    assert {record: where for record, where in places.items() if len(where) > 1} == {}
    assert {"SelectionRow", "RowKey", "Marker"} <= places.keys()


def test_the_control_topic_and_the_hosts_topic_have_one_fold_each():
    state = "clipper_agents.control.state"
    folds = {f"codec.{name}.decode": state for name in ("applications", "models", "changes", "restores", "drifts")}
    folds |= {"parse_key": state, "codec.host_reports.decode": "clipper_agents.control.readiness"}
    decoding = {(module, ast.unparse(call.func)) for module, call in calls()}
    elsewhere = {(module, decoded) for module, decoded in decoding if folds.get(decoded, module) != module}
    assert (folds["codec.host_reports.decode"], "codec.host_reports.decode") in decoding
    assert elsewhere == set()


# --- where parts meet ------------------------------------------------------------------------------------------------
ALIASES = r"^(\w+)(?:: TypeAlias)? = Callable\["
PROTOCOLS = r"^class (\w+)\((?:\w+, )*Protocol\b.*:\n(?:(?!\S).*\n)*?    (?:async )?def __call__\("


def test_no_constructor_takes_more_than_three_callables():
    """What it needs is an object with a Protocol. Counted are parameters of `__init__`, or the fields of a record."""
    source = "\n".join(PRODUCT.values())
    known = {"Callable", *re.findall(ALIASES, source, re.MULTILINE), *re.findall(PROTOCOLS, source, re.MULTILINE)}
    assert len(known) > 5
    classes = [(module, node) for module in PRODUCT for node in nodes(module) if isinstance(node, ast.ClassDef)]
    for module, node in classes:
        taken = [each for each in node.body if isinstance(each, ast.AnnAssign) and each.value is None]
        for init in node.body:
            if isinstance(init, ast.FunctionDef) and init.name == "__init__":
                taken = [*init.args.posonlyargs, *init.args.args, *init.args.kwonlyargs]
        sides = [ast.unparse(each.annotation).strip("'\"").split(" | ") for each in taken if each.annotation]
        names = [{side.partition("[")[0].rpartition(".")[2] for side in each} for each in sides]
        assert sum(bool(each & known) for each in names) <= 3, f"{module}.{node.name}"


def test_no_modules_import_each_other_not_even_for_types():
    """An import in a function is no part of importing its module; one behind `TYPE_CHECKING` is."""
    graph = {}
    for module in PRODUCT:
        kinds = ast.Import | ast.ImportFrom | ast.If | ast.Try
        top = [node for node in nodes(module)[0].body if isinstance(node, kinds)]
        graph[module] = imports_of(inner for node in top for inner in ast.walk(node)) - {module}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the modules of a cycle
