"""A long run under load while everything around the agents fails: nothing leaks, no answer is wrong."""
