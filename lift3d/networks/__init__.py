"""Networks, their weights and devices; backends are built on them."""

from typing import Literal, TypeAlias

Precision: TypeAlias = Literal["auto", "float32", "bfloat16", "float16"]
"""Floating-point type of a network; for auto see `device.py`. Defined here to avoid importing
torch."""
