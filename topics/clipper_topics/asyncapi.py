"""AsyncAPI document of the topics that applications and operators touch, from their point of view.

Source: AsyncAPI 3.0.0; Kafka bindings 0.5.0.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from clipper_topics.catalogue import Catalogue, TopicSpec
from clipper_topics.codec import CONTENT_TYPE, ECHOED, JSON, MSGPACK, MSGPACK_ALIASES
from clipper_topics.dead_letter import PREFIX
from clipper_topics.examples import MESSAGES, MessageKind
from clipper_topics.json_schema import components

KAFKA_BINDING = "0.5.0"


def document(catalogue: Catalogue, version: str) -> dict[str, Any]:
    """The whole document.

    Args:
        catalogue: Names and partitions of the topics.
        version: Version of the contract.
    """
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "clipper-stream",
            "version": version,
            "description": "Queries, predictions and feedback of a prediction-serving pipeline, and its manifests. "
            "Records are JSON, or msgpack with a content-type header; a reader ignores fields it does not know. "
            "Read committed records. What applications write may be compressed; a batch has at most 1 MiB unpacked. "
            "An answer has the partition of its query: match by partition, application and query_id, or by "
            "correlation-id. A repeated query_id has the first answer again, with the first query_offset; a value that "
            "is no query has a dead letter and no answer. Timestamps of these topics are the broker's.",
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": JSON,
        "channels": _channels(catalogue),
        "operations": _operations(),
        "components": {"messages": _messages(), "schemas": _schemas()},
    }


CHANNELS = {
    "queries": ("queries", "What applications ask.", ["query"]),
    "predictions": ("predictions", "Answers, and the log of decisions.", ["prediction"]),
    "audits": ("audits", "What models said that were asked for the log only.", ["audit"]),
    "feedback": ("feedback", "What was true about queries.", ["feedback"]),
    "feedbackAcks": ("feedback_acks", "What became of feedback with `ack: true`.", ["feedbackAck"]),
    "control": (
        "control",
        "What operators declare; an empty value takes it back.",
        ["application", "model", "change", "restore", "drift"],
    ),
    "hosts": ("hosts", "Which hosts are ready; an empty value: it has left.", ["hostReport"]),
    "comparisons": (
        "comparisons",
        "How versions compare; an empty value: it is not compared any more.",
        ["comparison"],
    ),
    "deadLetters": ("dead_letters", "Records that could not be used.", ["deadLetter"]),
}
"""The topic's name in the catalogue, what it holds, and its messages."""
OPERATIONS = {
    "ask": ("send", "queries", "Ask an application's models.", ["query"]),
    "readAnswer": (
        "receive",
        "predictions",
        "Read the answers; match them by application and query_id.",
        ["prediction"],
    ),
    "readAudit": ("receive", "audits", "Read what audited models said.", ["audit"]),
    "learn": ("send", "feedback", "Say what was true about a query.", ["feedback"]),
    "readAcknowledgement": ("receive", "feedbackAcks", "Read what became of feedback.", ["feedbackAck"]),
    "listApplications": ("receive", "control", "See which applications there are, and their inputs.", ["application"]),
    "declare": ("send", "control", "Declare applications and models.", ["application", "model"]),
    "followChanges": ("receive", "control", "See what was changed, by whom and why.", ["change"]),
    "followRestores": ("receive", "control", "See which states were restored.", ["restore"]),
    "followDrift": ("receive", "control", "See whose loss has changed.", ["drift"]),
    "followHosts": ("receive", "hosts", "See which hosts are ready.", ["hostReport"]),
    "followComparisons": ("receive", "comparisons", "See how versions compare.", ["comparison"]),
    "inspect": ("receive", "deadLetters", "See what could not be used, and why.", ["deadLetter"]),
}
"""Direction, channel, summary and messages."""


def _channels(catalogue: Catalogue) -> dict[str, Any]:
    topics = {topic.name: topic for topic in catalogue.fixed_topics()}
    return {
        name: _channel(topics[getattr(catalogue, topic)], description, messages)
        for name, (topic, description, messages) in CHANNELS.items()
    }


def _channel(topic: TopicSpec, description: str, messages: Sequence[str]) -> dict[str, Any]:
    config: dict[str, Any] = {"cleanup.policy": [topic.config["cleanup.policy"]]}
    config |= {name: int(topic.config[name]) for name in ("retention.ms", "max.message.bytes") if name in topic.config}
    return {
        "address": topic.name,
        "description": description,
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
        "bindings": {
            "kafka": {
                "topic": topic.name,
                "partitions": topic.partitions,
                "topicConfiguration": config,
                "bindingVersion": KAFKA_BINDING,
            }
        },
    }


def _operations() -> dict[str, Any]:
    return {
        name: {
            "action": action,
            "channel": {"$ref": f"#/channels/{channel}"},
            "summary": summary,
            "messages": [{"$ref": f"#/channels/{channel}/messages/{message}"} for message in messages],
        }
        for name, (action, channel, summary, messages) in OPERATIONS.items()
    }


def _messages() -> dict[str, Any]:
    return {
        **{_camel_case(name): _message(kind) for name, kind in MESSAGES.items()},
        "deadLetter": {
            "name": "DeadLetter",
            "contentType": "application/octet-stream",
            "headers": {"$ref": "#/components/schemas/DeadLetterHeaders"},
            "payload": {"description": "The original bytes."},
            "bindings": _key("The original record's key."),
        },
    }


def _camel_case(name: str) -> str:
    first, *others = name.split("-")
    return first + "".join(map(str.capitalize, others))


def _message(kind: MessageKind) -> dict[str, Any]:
    correlated = {"correlationId": {"location": f"$message.header#/{ECHOED[0]}"}} if kind.echoes else {}
    return {
        "name": kind.record.__name__,
        "contentType": JSON,
        **correlated,
        "headers": {"$ref": f"#/components/schemas/{'EchoedHeaders' if kind.echoes else 'Headers'}"},
        "payload": {"$ref": f"#/components/schemas/{kind.record.__name__}"},
        "bindings": _key(kind.key),
        "examples": [{"payload": msgspec.to_builtins(example)} for example in kind.examples],
    }


def _key(description: str) -> dict[str, Any]:
    return {"kafka": {"key": {"type": "string", "description": description}, "bindingVersion": KAFKA_BINDING}}


def _schemas() -> dict[str, Any]:
    content_type = {"type": "string", "enum": [JSON, MSGPACK, *MSGPACK_ALIASES], "default": JSON}
    names = ("exception", "message", "topic", "partition", "offset")
    return {
        **components([kind.record for kind in MESSAGES.values()], "#/components/schemas/{name}"),
        "Headers": _text_headers({CONTENT_TYPE: content_type}, required=()),
        "EchoedHeaders": _text_headers(
            {CONTENT_TYPE: content_type, **{name: {"type": "string"} for name in ECHOED}}, required=()
        ),
        "DeadLetterHeaders": _text_headers(
            {PREFIX + name: {"type": "string"} for name in names},
            required=[PREFIX + name for name in names],
        ),
    }


def _text_headers(properties: dict[str, Any], required: Sequence[str]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, **({"required": list(required)} if required else {})}
