"""Topics and rights of a deployment as text for whoever makes them: Strimzi, Terraform or Kafka's own commands."""

import shlex
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from json import dumps as quoted

from clipper_topics.catalogue import TopicSpec
from clipper_topics.rights import Right

DEFAULT_REPLICATION = 3
"""Where a format has no word for the brokers' default."""


def kafka_topics(specs: Iterable[TopicSpec], _: Iterable[Right], bootstrap: str, replication: int | None) -> str:
    """A line of `kafka-topics.sh` for each topic."""
    copies = [] if replication is None else ["--replication-factor", str(replication)]
    at = ["kafka-topics.sh", "--bootstrap-server", bootstrap, "--create", "--if-not-exists"]
    return _lines(
        [*at, "--topic", spec.name, "--partitions", str(spec.partitions), *copies]
        + [word for pair in spec.config.items() for word in ("--config", "=".join(pair))]
        for spec in specs
    )


def acl(_: Iterable[TopicSpec], rights: Iterable[Right], bootstrap: str, __: int | None) -> str:
    """A line of `kafka-acls.sh` for each right; the user of a role has its name."""
    at = ["kafka-acls.sh", "--bootstrap-server", bootstrap, "--add"]
    return _lines(
        [*at, "--allow-principal", f"User:{right.role}"]
        + [word for operation in right.operations for word in ("--operation", operation)]
        + [f"--{right.kind}", right.name, "--resource-pattern-type", "prefixed" if right.is_prefix else "literal"]
        for right in rights
    )


def strimzi(specs: Iterable[TopicSpec], rights: Iterable[Right], _: str, replication: int | None) -> str:
    """A KafkaTopic for each topic and a KafkaUser for each role, of Strimzi's cluster `kafka`."""

    def head(kind: str, name: str) -> Iterator[str]:
        yield from ("---", "apiVersion: kafka.strimzi.io/v1beta2", f"kind: {kind}", "metadata:")
        yield from (
            f"  name: {quoted(name.lower().replace('_', '-'))}",
            "  labels: {strimzi.io/cluster: kafka}",
            "spec:",
        )

    def lines() -> Iterator[str]:
        for spec in specs:
            yield from head("KafkaTopic", spec.name)
            yield from (f"  topicName: {quoted(spec.name)}", f"  partitions: {spec.partitions}")
            yield from () if replication is None else (f"  replicas: {replication}",)
            yield from ("  config:", *(f"    {key}: {quoted(value)}" for key, value in spec.config.items()))
        for role, of_role in groupby(rights, key=lambda right: right.role):
            yield from head("KafkaUser", role)
            yield from ("  authentication: {type: scram-sha-512}", "  authorization:", "    type: simple", "    acls:")
            for right in of_role:
                kind = "transactionalId" if right.kind == "transactional-id" else right.kind
                pattern = "prefix" if right.is_prefix else "literal"
                yield f"      - resource: {{type: {kind}, name: {quoted(right.name)}, patternType: {pattern}}}"
                yield f"        operations: [{', '.join(right.operations)}]"

    return "\n".join(lines()) + "\n"


def terraform(specs: Iterable[TopicSpec], rights: Iterable[Right], _: str, replication: int | None) -> str:
    """A `kafka_topic` for each topic and a `kafka_acl` for each operation, of the provider Mongey/kafka."""

    def block(kind: str, name: str, *lines: str) -> Iterator[str]:
        label = "".join(char if char.isalnum() else "_" for char in name)
        yield from (f'resource "{kind}" "{label}" {{', *(f"  {line}" for line in lines), "}", "")

    def lines() -> Iterator[str]:
        for spec in specs:
            config = [f"    {quoted(key)} = {quoted(value)}" for key, value in spec.config.items()]
            yield from block(
                "kafka_topic", spec.name, f"name = {quoted(spec.name)}", f"partitions = {spec.partitions}",
                f"replication_factor = {replication or DEFAULT_REPLICATION}", "config = {", *config, "}",
            )  # fmt: skip
        for right in rights:
            for operation in right.operations:
                kind = "TransactionalID" if right.kind == "transactional-id" else right.kind.capitalize()
                yield from block(
                    "kafka_acl", f"{right.role}_{right.kind}_{right.name}_{operation}",
                    f"resource_name = {quoted(right.name)}", f"resource_type = {quoted(kind)}",
                    f"resource_pattern_type_filter = {quoted('Prefixed' if right.is_prefix else 'Literal')}",
                    f"acl_principal = {quoted('User:' + right.role)}", 'acl_host = "*"',
                    f"acl_operation = {quoted(operation)}", 'acl_permission_type = "Allow"',
                )  # fmt: skip

    return "\n".join(lines())


def _lines(commands: Iterable[list[str]]) -> str:
    return "".join(f"{shlex.join(command)}\n" for command in commands)


Format = Callable[[Iterable[TopicSpec], Iterable[Right], str, int | None], str]
FORMATS: dict[str, Format] = {"strimzi": strimzi, "terraform": terraform, "kafka-topics": kafka_topics, "acl": acl}
"""What `topics export --format` knows."""
