"""`python tests/generate_schemas.py [FOLDER]`: write the JSON Schemas and the AsyncAPI document of the wire contract.

Without a folder they are written where they are packaged; a test fails while these differ from what would be written.
The AsyncAPI document has the topics that applications and operators touch, from their point of view.

Source: AsyncAPI 3.0.0; Kafka bindings 0.5.0.
"""

import json
import sys
from pathlib import Path

import msgspec
from builders.messages import MESSAGES

import clipper_topics
from clipper_topics.catalogue import Catalogue
from clipper_topics.codec import CONTENT_TYPE, ECHOED, JSON, MSGPACK, MSGPACK_ALIASES
from clipper_topics.dead_letter import PREFIX
from clipper_topics.json_schema import components, schema

FOLDER = Path(clipper_topics.__file__).parent / "schemas"
CONTRACT_VERSION = "1.5.0"
"""Minor: a field was added, older readers ignore it; or more is accepted.
Major: an old reader would misunderstand."""
KAFKA_BINDING = "0.5.0"
DESCRIPTION = (
    "Queries, predictions and feedback of a prediction-serving pipeline, and its manifests. "
    "Records are JSON, or msgpack with a content-type header; a reader ignores fields it does not know. "
    "Read committed records. What applications write may be compressed; a batch has at most 1 MiB unpacked. "
    "An answer has the partition of its query: match by partition, application and query_id, or by "
    "correlation-id. A repeated query_id has the first answer again, with the first query_offset; a value that "
    "is no query has a dead letter and no answer. Timestamps of these topics are the broker's."
)

CHANNELS = {
    "queries": ("queries", "What applications ask.", "query"),
    "predictions": ("predictions", "Answers, and the log of decisions.", "prediction"),
    "audits": ("audits", "What models said that were asked for the log only.", "audit"),
    "feedback": ("feedback", "What was true about queries.", "feedback"),
    "feedbackAcks": ("feedback_acks", "What became of feedback with `ack: true`.", "feedbackAck"),
    "control": (
        "control",
        "What operators declare; an empty value takes it back.",
        "application model change restore drift",
    ),
    "hosts": ("hosts", "Which hosts are ready; an empty value: it has left.", "hostReport"),
    "comparisons": ("comparisons", "How versions compare; an empty value: it is not compared any more.", "comparison"),
    "deadLetters": ("dead_letters", "Records that could not be used.", "deadLetter"),
}
"""By channel: the topic's name in the catalogue, what it holds, and its messages."""
OPERATIONS = {
    "ask": ("send", "queries", "Ask an application's models.", "query"),
    "readAnswer": ("receive", "predictions", "Read the answers; match them by application and query_id.", "prediction"),
    "readAudit": ("receive", "audits", "Read what audited models said.", "audit"),
    "learn": ("send", "feedback", "Say what was true about a query.", "feedback"),
    "readAcknowledgement": ("receive", "feedbackAcks", "Read what became of feedback.", "feedbackAck"),
    "listApplications": ("receive", "control", "See which applications there are, and their inputs.", "application"),
    "declare": ("send", "control", "Declare applications and models.", "application model"),
    "followChanges": ("receive", "control", "See what was changed, by whom and why.", "change"),
    "followRestores": ("receive", "control", "See which states were restored.", "restore"),
    "followDrift": ("receive", "control", "See whose loss has changed.", "drift"),
    "followHosts": ("receive", "hosts", "See which hosts are ready.", "hostReport"),
    "followComparisons": ("receive", "comparisons", "See how versions compare.", "comparison"),
    "inspect": ("receive", "deadLetters", "See what could not be used, and why.", "deadLetter"),
}
"""By operation: direction, channel, summary and messages."""
TEXT = {"type": "string"}
CONTENT_TYPES = {"type": "string", "enum": [JSON, MSGPACK, *MSGPACK_ALIASES], "default": JSON}
LETTER_HEADERS = {PREFIX + name: TEXT for name in ("exception", "message", "topic", "partition", "offset")}


def asyncapi(catalogue, version):
    topics = {topic.name: topic for topic in catalogue.fixed_topics()}
    records = [kind.record for kind in MESSAGES.values()]
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "clipper-stream",
            "version": version,
            "description": DESCRIPTION,
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": JSON,
        "channels": {
            name: _channel(topics[getattr(catalogue, topic)], description, messages.split())
            for name, (topic, description, messages) in CHANNELS.items()
        },
        "operations": {
            name: {
                "action": action,
                "channel": _ref("channels", channel),
                "summary": summary,
                "messages": [_ref("channels", channel, "messages", message) for message in messages.split()],
            }
            for name, (action, channel, summary, messages) in OPERATIONS.items()
        },
        "components": {
            "messages": {_camel_case(name): _message(kind) for name, kind in MESSAGES.items()}
            | {"deadLetter": DEAD_LETTER},
            "schemas": {
                **components(records, "#/components/schemas/{name}"),
                "Headers": {"type": "object", "properties": {CONTENT_TYPE: CONTENT_TYPES}},
                "EchoedHeaders": {
                    "type": "object",
                    "properties": {CONTENT_TYPE: CONTENT_TYPES, **dict.fromkeys(ECHOED, TEXT)},
                },
                "DeadLetterHeaders": {"type": "object", "properties": LETTER_HEADERS, "required": [*LETTER_HEADERS]},
            },
        },
    }


def _ref(*path):
    return {"$ref": "/".join(("#", *path))}


def _key(description):
    return {"kafka": {"key": {"type": "string", "description": description}, "bindingVersion": KAFKA_BINDING}}


DEAD_LETTER = {
    "name": "DeadLetter",
    "contentType": "application/octet-stream",
    "headers": _ref("components", "schemas", "DeadLetterHeaders"),
    "payload": {"description": "The original bytes."},
    "bindings": _key("The original record's key."),
}


def _channel(topic, description, messages):
    numbers = {name: int(topic.config[name]) for name in ("retention.ms", "max.message.bytes") if name in topic.config}
    return {
        "address": topic.name,
        "description": description,
        "messages": {name: _ref("components", "messages", name) for name in messages},
        "bindings": {
            "kafka": {
                "topic": topic.name,
                "partitions": topic.partitions,
                "topicConfiguration": {"cleanup.policy": [topic.config["cleanup.policy"]], **numbers},
                "bindingVersion": KAFKA_BINDING,
            }
        },
    }


def _camel_case(name):
    first, *others = name.split("-")
    return first + "".join(map(str.capitalize, others))


def _message(kind):
    correlated = {"correlationId": {"location": f"$message.header#/{ECHOED[0]}"}} if kind.echoes else {}
    return {
        "name": kind.record.__name__,
        "contentType": JSON,
        **correlated,
        "headers": _ref("components", "schemas", "EchoedHeaders" if kind.echoes else "Headers"),
        "payload": _ref("components", "schemas", kind.record.__name__),
        "bindings": _key(kind.key),
        "examples": [{"payload": msgspec.to_builtins(example)} for example in kind.examples],
    }


def documents():
    """Text of every generated file, by file name."""
    found = {
        f"{name}.schema.json": schema(kind.record, [msgspec.to_builtins(example) for example in kind.examples])
        for name, kind in MESSAGES.items()
    }
    found["asyncapi.json"] = asyncapi(Catalogue(), CONTRACT_VERSION)
    return {name: json.dumps(content, indent=2, ensure_ascii=False) + "\n" for name, content in found.items()}


def main(folder=FOLDER):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in documents().items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(*(Path(folder) for folder in sys.argv[1:2]))
