"""The control topic: what it says now, which changes are allowed, and the one way to write to it.

[changes, rollback, apply] --Plan--> [writer: one transaction] --> control topic --> [state: the fold]
   | RefusedChange                     | StaleRevision, WriteContention, NoCoordinator
"""
