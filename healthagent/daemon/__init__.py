"""The agent: builds everything, starts it, stops it. The only rooms that know all the others."""

from .agent import Agent
from .parts import StartError

__all__ = ["Agent", "StartError"]
