"""Check that an encoded image is complete, because decoders fill missing parts with grey."""

from __future__ import annotations

import struct
import zlib

from lift3d.scene.errors import FrameError

PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8\xff"


def check_complete(data: bytes, where: str) -> None:
    """Raise FrameError where a PNG or JPEG is empty, truncated or damaged.

    Other formats pass: their decoders refuse truncated files themselves.
    """
    fault = None
    if not data:
        fault = "is empty"
    elif PNG.startswith(data[:8]):
        fault = _png_fault(data)
    elif data.startswith(JPEG):
        fault = _jpeg_fault(data)
    if fault:
        raise FrameError(
            f"{where} {fault}: found {len(data)} bytes; the frame is skipped, "
            "copy or export it again to keep it"
        )


def _png_fault(data: bytes) -> str | None:
    """Check the checksum of each chunk up to IEND (PNG, 3rd ed., section 5)."""
    position = len(PNG)
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 8 + length
        if end + 4 > len(data):
            break
        (stored,) = struct.unpack_from(">I", data, end)
        if zlib.crc32(memoryview(data)[position + 4 : end]) != stored:
            return f"is damaged (checksum of chunk {kind.decode('latin1')} at byte {position})"
        if kind == b"IEND":
            return None
        position = end + 4
    return "is a truncated PNG"


def _jpeg_fault(data: bytes) -> str | None:
    """Skip the segments up to the scan, then search for the end marker.

    Thumbnails have their own end markers, but inside segments, which are skipped; compressed data
    cannot contain one. Data that phones append after the end is ignored.
    """
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
        elif marker == 0xDA:
            return None if data.find(b"\xff\xd9", position) >= 0 else "is a truncated JPEG"
        elif marker == 0x01 or 0xD0 <= marker <= 0xD7:  # markers without a body
            position += 2
        else:
            position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return "is a truncated JPEG"
