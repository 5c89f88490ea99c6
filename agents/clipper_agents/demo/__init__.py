"""`clipper-stream demo`: five models, two policies, one failure, on a real Kafka, in under two minutes.

    data --> models --> run: Deployment (Kafka, router, five hosts, all processes of their own) --> report
                         ^ queries, feedback          | answers
    scenario --> load generator <--------------------+

As in figure 8 of Clipper (Crankshaw et al., NSDI 2017) the best model fails at a quarter of the stream and is repaired
at half of it. The demo is a client like any other: it knows the topics, and the metrics that processes serve.
"""

LOAD_S = 80.0
"""Of the two minutes that a demo takes; a slow machine answers less in it, and is asked less."""
LEAST_QUERIES = 400
"""Fewer say nothing: a phase of one application would have fewer than 50."""
MOST_DEFAULTS = 0.05
"""Share of default outputs beyond which a run shows how slow the machine is, and not how policies choose."""
