"""Which rights each role needs on Kafka, and no others."""

from collections.abc import Iterable
from typing import NamedTuple

from clipper_topics.catalogue import Catalogue

ANY_VERSION = "<model>.<version>"
"""Stands for a version of a model where the rights of its hosts are written down."""
_TABLE = f"""
operator           topic             Create,DescribeConfigs,Alter  *
operator           topic             Read,Write                    control hosts
operator           topic             Describe                      feedback
operator           topic             Read,Delete                   requests.*
operator           topic             Read                          router-selection-changelog
operator           transactional-id  Write                         control-writer
operator           group             Read,Delete                   host.*
router             topic             Read                          queries outputs control
router             topic             Read,Write                    feedback predictions audits selection
router             topic             Read,Write                    router-selection-changelog hosts
router             topic             Write                         feedback-acks requests.* dead-letters
router             transactional-id  Write                         router-selection-changelog-*
router             group             Read                          router
steward            topic             Read,Write                    control
steward            topic             Read                          predictions audits feedback
steward            topic             Read                          router-selection-changelog
steward            topic             Write                         comparisons
steward            transactional-id  Write                         control-writer
host               topic             Read                          control requests.{ANY_VERSION}
host               topic             Write                         outputs hosts dead-letters
host               group             Read                          host.{ANY_VERSION}
application        topic             Write                         queries feedback
application        topic             Read                          predictions feedback-acks
gateway            topic             Read,Write                    control queries feedback
gateway            topic             Read                          predictions feedback-acks audits hosts selection
gateway            topic             Read                          comparisons dead-letters router-selection-changelog
gateway            topic             Read                          outputs requests.*
gateway            group             Describe                      router host.*
gateway            transactional-id  Write                         control-writer
loadgen            topic             Write                         queries feedback
loadgen            topic             Read                          predictions control
dead-letter-reader topic             Read                          dead-letters
dead-letter-reader group             Read                          :dead-letter-reader
"""
"""Names are behind the deployment's prefix, but one after a colon; one that ends with `*` is a prefix itself."""


class Right(NamedTuple):
    """Operations on a resource, by Kafka's names of kinds and operations."""

    role: str
    kind: str
    name: str
    is_prefix: bool
    operations: tuple[str, ...]


def rights_of(catalogue: Catalogue, versions: Iterable[str] = ()) -> list[Right]:
    """Return the rights of all roles, with those of a `host` of each of these versions (`svm.1`).

    >>> [right.name for right in rights_of(Catalogue(), ["svm.1"]) if right.role == "host" and right.kind == "group"]
    ['clipper.host.svm.1']
    """
    found = list[Right]()
    for role, kind, operations, *names in map(str.split, _TABLE.strip().splitlines()):
        for name in names:
            of_prefix = name[1:] if name.startswith(":") else f"{catalogue.prefix}.{name}"
            for version in versions if ANY_VERSION in name else [""]:
                text = of_prefix.replace(ANY_VERSION, version)
                found.append(Right(role, kind, text.removesuffix("*"), text.endswith("*"), (*operations.split(","),)))
    return found
