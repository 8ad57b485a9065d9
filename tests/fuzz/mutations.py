"""Seeded damage to files: cuts, flips, edited headers, odd JSON values, swapped types."""

from __future__ import annotations

import io
import json
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Rng = np.random.Generator
DEEP = "\0deep\0"  # stands for 100 000 nested lists, which json.dumps cannot write
ODD = (
    *(None, True, -1, 0, 1.5, 2**31, 2**63, 10**11, 10**30, 10**400),
    *(float("nan"), float("inf"), -1e308, 1e-320),
    *("", "x", "a\0b", "../../stray", "/", "\ud800", "n" * 5000, "[/b]\x1b[31m", "nan"),
    *([], {}, [[]], [1, "a"], {"a": 1}, DEEP),
)
NUMBERS = ("nan", "inf", "-inf", "1e400", "-1", "0", "1e30", "99999999999999999999", "x", "", "#")
INTEGERS = (0, 1, 2, 255, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 10**11, 2**63, 2**64 - 1)


def pick(rng: Rng, things: Any) -> Any:
    return things[int(rng.integers(len(things)))]


def mutate(path: Path, rng: Rng, others: list[Path]) -> str:
    """Damage one file in a way that suits it; returns what was done."""
    ways: list[Callable[[bytes, Rng], bytes]] = [cut, flip, junk, integers]
    data = path.read_bytes()
    if path.suffix in (".json", ".jsonl"):
        ways = [json_value] * 8 + [cut, flip]
    elif data[:4] == b"ply\n":
        ways += [ply_header] * 6 + [words]
    elif data[:6] == b"\x93NUMPY":
        ways += [npy_header] * 5
    elif data[:2] == b"PK":
        ways += [npz_member] * 6
    elif data[:4] == b"\x89PNG":
        ways += [png_header] * 3 + [chunk_type]
    elif _is_text(data):
        ways = [words] * 6 + [lines] * 2 + [cut, flip, junk]
    chance = rng.random()
    if chance < 0.03:
        return special(path, rng)
    if chance < 0.08:
        other = pick(rng, others)
        replace(path, other.read_bytes())
        return f"content of {other.name}"
    way = pick(rng, ways)
    try:
        damaged = way(data, rng)
    except Exception:  # the file was damaged before, and has no such part any more
        way, damaged = junk, junk(data, rng)
    replace(path, damaged)
    return str(way.__name__)


def replace(path: Path, data: bytes) -> None:
    path.unlink()  # it may be a link to the sample
    path.write_bytes(data)


def special(path: Path, rng: Rng) -> str:
    """No regular file, or none."""
    path.unlink()
    what = pick(rng, ("gone", "empty", "folder", "pipe", "endless", "circle"))
    if what == "empty":
        path.touch()
    elif what == "folder":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "endless":
        path.symlink_to("/dev/zero")
    elif what == "circle":
        path.symlink_to(path.name)
    return str(what)


def cut(data: bytes, rng: Rng) -> bytes:
    return data[: int(rng.integers(len(data) + 1))]


def flip(data: bytes, rng: Rng) -> bytes:
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 9)) if data else 0):
        changed[int(rng.integers(len(changed)))] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def junk(data: bytes, rng: Rng) -> bytes:
    at, gone = int(rng.integers(len(data) + 1)), int(rng.integers(50))
    return data[:at] + rng.bytes(int(rng.integers(50))) + data[at + gone :]


def integers(data: bytes, rng: Rng) -> bytes:
    """An extreme whole number, mostly in the header."""
    form = pick(rng, ("<I", "<Q", ">I", "<H", "<i"))
    size = struct.calcsize(form)
    end = len(data) if rng.random() < 0.3 else min(len(data), 400)
    at = int(rng.integers(max(1, end - size)))
    number = pick(rng, INTEGERS) % 2 ** (8 * size)
    number -= 2 ** (8 * size) if form == "<i" and number >= 2**31 else 0
    return data[:at] + struct.pack(form, number) + data[at + size :]


def words(data: bytes, rng: Rng) -> bytes:
    """A word of a text becomes an odd number."""
    found = list(re.finditer(rb"[^\s,:={}\[\]\"]+", data))
    if not found:
        return junk(data, rng)
    word = pick(rng, found)
    return data[: word.start()] + pick(rng, NUMBERS).encode() + data[word.end() :]


def lines(data: bytes, rng: Rng) -> bytes:
    """A line is lost, doubled, or far too long."""
    rows = data.splitlines(keepends=True) or [b""]
    at = int(rng.integers(len(rows)))
    rows[at : at + 1] = pick(rng, ([], [rows[at]] * 2, [rows[at] * 3000], [b"\0\xff\n"]))
    return b"".join(rows)


def json_value(data: bytes, rng: Rng) -> bytes:
    """One value, anywhere, is replaced by an odd one, or its key is lost."""
    try:
        whole = {"": json.loads(data)}
    except ValueError:
        return flip(data, rng)
    places: list[tuple[Any, Any]] = []
    here: list[Any] = [whole]
    while here:
        each = here.pop()
        keys = list(each) if isinstance(each, dict) else range(len(each))
        # Of a long list only some entries, or they hide all other values.
        for key in keys if len(keys) < 9 else [pick(rng, keys) for _ in range(8)]:
            places.append((each, key))
            if isinstance(each[key], dict | list):
                here.append(each[key])
    holder, key = pick(rng, places)
    if holder is not whole and rng.random() < 0.25:
        del holder[key]
    else:
        old = holder[key]
        holder[key] = pick(rng, (*ODD, [old], {"a": old}, str(old)))
    text = json.dumps(whole[""])
    return text.replace(json.dumps(DEEP), "[" * 100_000 + "]" * 100_000).encode()


def ply_header(data: bytes, rng: Rng) -> bytes:
    """A count, a type or a name of the header is another."""
    header, end, body = data.partition(b"end_header\n")
    rows = header.decode("latin1").splitlines()
    at = int(rng.integers(1, len(rows)))
    parts = rows[at].split()
    if parts[0] == "element":
        parts[2] = str(pick(rng, (-1, 0, 1, 2**31, 2**63, 10**30, "x")))
    elif parts[0] == "property":
        kinds = ("char", "double", "int", "uint", "quad", "list uchar int", "list int float")
        place = int(rng.integers(1, len(parts)))
        parts[place] = pick(rng, kinds if place < len(parts) - 1 else ("x", "red", "label", ""))
    else:
        parts = pick(rng, (["format", "ascii", "1.0"], ["format", "x"], [], ["element", "a"]))
    rows[at : at + 1] = pick(rng, ([" ".join(parts)], [" ".join(parts)], []))
    return "\n".join([*rows, ""]).encode("latin1") + end + body


def npy_header(data: bytes, rng: Rng) -> bytes:
    """Another shape, type or syntax in the header, with or without the same length."""
    size = struct.unpack("<H", data[8:10])[0]
    header, body = data[10 : 10 + size].decode("latin1"), data[10 + size :]
    shapes = ("(0,)", "()", "(-1,)", "(1048576, 1200, 1600)", "(99999999999,)", "(2, 2)", "((", "3")
    kinds = ("|b1", "<f8", "|O", "<U99", "|V7", "<i8", "<c8", "x")
    header = pick(
        rng,
        (
            re.sub(r"\((.*?)\)", pick(rng, shapes), header, count=1),
            re.sub(r"'descr': '.*?'", f"'descr': '{pick(rng, kinds)}'", header),
            words(header.encode(), rng).decode("latin1"),
            "(" * 2000,
        ),
    )
    return data[:8] + struct.pack("<H", len(header)) + header.encode("latin1") + body


def npz_member(data: bytes, rng: Rng) -> bytes:
    """One array of an .npz is another, damaged or lost."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {each: archive.read(each) for each in archive.namelist()}
    name = pick(rng, list(members))
    array = np.load(io.BytesIO(members[name]))
    array = array if array.nbytes < 1 << 20 else array[:1, :9]  # this memory is counted too
    odd = (
        *(array[..., :1] if array.ndim else array, array.astype(np.float64) * np.nan),
        *(array[:0] if array.ndim else array, array.astype(np.int64) + 2**31, -array.astype(int)),
        *(np.array("text"), np.zeros(3), array[None], array.astype(np.float32)),
        np.zeros((64, 1024, 1024), np.uint8),  # packed it is small
    )
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for each, content in members.items():
            if each == name:
                way = int(rng.integers(4))
                if way == 0:
                    continue
                stored = io.BytesIO()
                np.save(stored, pick(rng, odd), allow_pickle=False)
                content = (npy_header(content, rng), stored.getvalue(), stored.getvalue())[way - 1]
            archive.writestr(each, content)
    return out.getvalue()


def png_header(data: bytes, rng: Rng) -> bytes:
    """Another size or depth of pixels, with the right checksum."""
    width, height, depth, colour = struct.unpack(">IIBB", data[16:26])
    sizes = (0, 1, 7, 30_000, 2**20, 2**31 - 1)
    width, height = pick(
        rng, ((width, pick(rng, sizes)), (pick(rng, sizes), height), (30_000, 30_000))
    )
    if rng.random() < 0.3:
        depth, colour = pick(rng, ((1, 0), (8, 3), (16, 6), (8, 2), (16, 0), (9, 9)))
    chunk = b"IHDR" + struct.pack(">IIBB", width, height, depth, colour) + data[26:29]
    return data[:12] + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[33:]


def chunk_type(data: bytes, rng: Rng) -> bytes:
    """A chunk of its own before the pixels, such as a huge text or a palette."""
    kind = pick(rng, (b"tEXt", b"zTXt", b"PLTE", b"eXIf", b"iCCP", b"acTL"))
    body = pick(rng, (b"", rng.bytes(20), b"a\0\0" + zlib.compress(bytes(10**7), 1)))
    chunk = struct.pack(">I", len(body)) + kind + body
    return data[:33] + chunk + struct.pack(">I", zlib.crc32(kind + body)) + data[33:]


def _is_text(data: bytes) -> bool:
    try:
        return "\0" not in data.decode()
    except UnicodeDecodeError:
        return False
