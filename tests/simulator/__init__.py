"""Random schedules of faults against real boards on virtual time: `python -m tests.simulator --help`."""
