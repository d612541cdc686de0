"""The agent: builds everything, starts it, stops it. The only rooms that know all the others."""

from healthagent.daemon.agent import Agent
from healthagent.daemon.parts import StartError

__all__ = ["Agent", "StartError"]
