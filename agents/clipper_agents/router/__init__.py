"""The router: reads queries and feedback, asks model hosts, answers, learns.

| a query is | where |
|---|---|
| read | `queries` (agent `route`), `set_aside` |
| taken through its life | `pipeline`, which reads and writes around the steps of `clipper_stream.query` |
| sent to models, and given their outputs | `requests` (agent `gather`), `colocated_models` |
| logged | `prediction_records`, `indexed_log`, `decision_index` |
| learned from | `feedback` (agent `learn`), `clipper_agents.feedback`, `selection_store` |

`app` builds the process; `applications` and `models` follow what is declared.
"""
