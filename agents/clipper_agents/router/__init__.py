"""The router: reads queries and feedback, asks model hosts, answers, learns.

| a query is | where |
|---|---|
| read | `queries` (agent `route`), `query_consumer` |
| decided, cached, combined | `clipper_stream.query`, `clipper_stream.selection`, `clipper_stream.caching` |
| sent to models | `effects`, `requests`, `colocated` |
| given its outputs | `outputs` (agent `gather`) |
| answered and logged | `prediction_log`, `audit_log`, `indexed_log`, `prediction_records`, `decision_index` |
| learned from | `feedback` (agent `learn`), `clipper_agents.feedback`, `selection_store` |

`app` builds the process; `applications` and `models` follow what is declared.
"""
