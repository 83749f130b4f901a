"""Use cases as functions: every change an operator can make, and what they may ask.

What a use case needs of the gateway or of the clock comes in as a value.
"""
