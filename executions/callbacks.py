"""Callbacks: the answer that a partner posts later, to an address that only it was told.

(Being built. Tokens and the sealing of kept answers are in `callback_tokens.py`, below the worker;
this module, above it, receives: `from executions.callback_tokens import ...`.)
"""
