"""Do the formats of `topics export` say the same?"""

import re
import shlex
from itertools import pairwise

import pytest
import yaml

from clipper_topics.catalogue import Catalogue
from clipper_topics.rights import rights_of
from clipper_topics.topic_export import FORMATS

CATALOGUE = Catalogue(prefix="Acme_1", partitions=6)
SPECS = [*CATALOGUE.fixed_topics(), CATALOGUE.requests_topic("svm", "2", 3)]
RIGHTS = rights_of(CATALOGUE, ["svm.2"])
TOPICS = {(spec.name, spec.partitions, tuple(sorted(spec.config.items()))) for spec in SPECS}
ACLS = {(one.role, one.kind, one.name, one.is_prefix, name) for one in RIGHTS for name in one.operations}


def exported(form, replication=None):
    return FORMATS[form](SPECS, RIGHTS, "kafka-1:9092", replication)


def test_kafkas_commands_have_each_topic_and_each_right():
    found = set()
    for words in map(shlex.split, exported("kafka-topics").splitlines()):
        options = list(pairwise(words))
        config = sorted(tuple(value.split("=")) for key, value in options if key == "--config")
        given = dict(options)
        found.add((given["--topic"], int(given["--partitions"]), tuple(config)))
    assert found == TOPICS
    assert exported("kafka-topics", 3).count("--replication-factor 3") == len(SPECS)
    found = set()
    for words in map(shlex.split, exported("acl").splitlines()):
        kind = next(word.removeprefix("--") for word in words if word in ("--topic", "--group", "--transactional-id"))
        given = dict(pairwise(words))
        operations = [value for key, value in pairwise(words) if key == "--operation"]
        is_prefix = given["--resource-pattern-type"] == "prefixed"
        who = given["--allow-principal"].removeprefix("User:")
        found |= {(who, kind, given[f"--{kind}"], is_prefix, one) for one in operations}
    assert found == ACLS


def test_strimzis_resources_have_each_topic_and_each_right():
    found = list(yaml.safe_load_all(exported("strimzi", 3)))
    topics = [one["spec"] for one in found if one["kind"] == "KafkaTopic"]
    assert {(one["topicName"], one["partitions"], tuple(sorted(one["config"].items()))) for one in topics} == TOPICS
    assert {one["replicas"] for one in topics} == {3}
    assert [one["metadata"]["name"] for one in found if not re.fullmatch(r"[a-z0-9.-]+", one["metadata"]["name"])] == []
    kinds = {"topic": "topic", "group": "group", "transactionalId": "transactional-id"}
    assert {
        (user["metadata"]["name"], kinds[acl["resource"]["type"]], acl["resource"]["name"],
         acl["resource"]["patternType"] == "prefix", operation)
        for user in found if user["kind"] == "KafkaUser"
        for acl in user["spec"]["authorization"]["acls"] for operation in acl["operations"]
    } == ACLS  # fmt: skip


@pytest.mark.parametrize(("kind", "count"), [("kafka_topic", len(TOPICS)), ("kafka_acl", len(ACLS))])
def test_terraform_has_a_resource_of_its_own_for_each(kind, count):
    labels = re.findall(rf'^resource "{kind}" "(\w+)" {{$', exported("terraform"), re.MULTILINE)
    assert len({*labels}) == len(labels) == count
    assert exported("terraform").count("{") == exported("terraform").count("}")


def test_a_host_has_the_rights_of_its_version_alone():
    assert {one.name for one in RIGHTS if "svm" in one.name} == {"Acme_1.requests.svm.2", "Acme_1.host.svm.2"}
