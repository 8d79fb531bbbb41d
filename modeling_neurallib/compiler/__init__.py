"""Restricted Python into libraries: parse, lower, optimise, allocate, assemble, link; ``compiling`` composes them."""
