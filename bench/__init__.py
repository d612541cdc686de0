"""Measurements side by side, in one run, interleaved: ratios travel between machines, figures do not."""
