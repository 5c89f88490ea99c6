"""`clipper-stream demo`: five models, two policies, one failure, on a real Kafka, in under two minutes.

    data --> models --> run: Deployment (Kafka, router, five hosts, all processes of their own) --> report
                         ^ queries, feedback          | answers
    scenario --> load generator <--------------------+

As in figure 8 of Clipper (Crankshaw et al., NSDI 2017) the best model fails at a quarter of the stream and is repaired
at half of it. The demo is a client like any other: it knows the topics, and the metrics that processes serve.
"""
