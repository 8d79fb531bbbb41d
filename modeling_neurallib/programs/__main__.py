"""``python -m neurallib.modeling_neurallib.programs`` compiles the standard library anew, to where it ships."""

from __future__ import annotations

from . import SHIPPED, compile_standard_library

compile_standard_library().save_pretrained(SHIPPED)
