"""The router: reads queries and feedback, asks model hosts, answers, learns.

| a query is | where |
|---|---|
| decoded | `decoding` |
| decided, cached, combined | `clipper_stream.query`, `clipper_stream.selection`, `clipper_stream.caching` |
| asked | `requests` |
| answered and logged | `recorder`, `audits`, `indexed_log`, `encoding`, `decisions` |
| learned from | `learning`, `selection` |

The agents are thin: `agents` wires them, `carrying` does what the pure router asks for, `worker` is the process.
"""
