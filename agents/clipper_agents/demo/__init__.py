"""`clipper-stream demo`: five models, two policies, one failure, on a real Kafka, in under two minutes.

    data --> models --> manifests --> Deployment (broker, router, five hosts, all processes of their own)
      |                                    ^ topics               ^ metrics
      +--> script --> traffic (queries, answers, feedback)     watching (samples)
                          |                                       |
                      observations ------> result <---------------+
                                             |--> verdict (exit code), table, JSON, figures, report.html

As in figure 8 of Clipper (Crankshaw et al., NSDI 2017) the best model degrades at a quarter of the stream and is
restored at half of it. The demo is a client like any other: it knows the topics, and the metrics that processes serve.
"""
