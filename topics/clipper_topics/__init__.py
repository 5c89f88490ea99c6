"""The wire contract of clipper-stream: topics, records, codecs. It imports no other package of the project.

A record that crosses a process boundary is defined here and nowhere else. What applications read and write
(`Query`, `Prediction`, `Feedback`, manifests) is JSON or msgpack and has a JSON Schema; frames between our own
processes (`RequestFrame`, `OutputFrame`) are binary and versioned.
"""
