"""The rules: no await, no clock, no logging. Evidence and an instant in, a verdict out."""
