"""Breaks things on purpose and checks what is left: `script/chaos`, and the kills of `script/test`."""
