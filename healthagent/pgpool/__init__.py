"""The backend check that Pgpool-II does not have: its view of the cluster follows the agents.

One round, once each `interval`: poll.py asks the agents and pgpool, reconcile.py decides, sync.py acts over
PCP. model.py holds the words, pcp.py the protocol, agents.py the questions to the agents.
"""
