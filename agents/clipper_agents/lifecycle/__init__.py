"""How the versions of an application's models come and go: pure rules, from what is published to what is to be.

[rules, going_back, declaring] --Plan--> [admin.changing: one transaction] --> control topic
   | RefusedChange                          | StaleRevision, Outpaced
"""
