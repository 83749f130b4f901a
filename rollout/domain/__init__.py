"""The ground floor: values and the pure functions that decide over them.

No clock, no chance, no environment and no I/O; whatever of the world is needed comes in as an argument.
"""
