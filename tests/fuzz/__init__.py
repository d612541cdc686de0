"""Random and slightly wrong input for everything that reads what others wrote.

`tests/test_fuzz.py` runs a bounded part in every run of the tests, `make fuzz` ten minutes of it.
"""
