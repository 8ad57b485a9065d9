"""Networks, their weights and devices: below the backends that use them."""

from typing import Literal, TypeAlias

Precision: TypeAlias = Literal["auto", "float32", "bfloat16", "float16"]
"""What a network computes in; `device.py` says what auto is. Here, because it needs no torch."""
