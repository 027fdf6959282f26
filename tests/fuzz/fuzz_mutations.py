"""Mutations of files: of their bytes, and of what the bytes mean (text, JSON, zip members, tensors, protocol buffers).

Everything is drawn from a `random.Random`: the same seed gives the same files.
"""

from __future__ import annotations

import hashlib
import io
import json
import struct
import zipfile
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np

MARKER = "fuzz_marker"
_RUNS = f"__import__('os').mkdir('{MARKER}')"
NUMBERS = (
    *("0", "-1", "1", "2", "7", "255", "65536", "2147483647", "-2147483648", "4294967296", "1000000000"),
    *("9223372036854775807", "1e308", "1e-320", "1e400", "nan", "inf", "-inf", "0.5", "1" + "0" * 23, "9" * 5000),
)
NAMES = (
    *("", " ", "in", "class", "None", "__class__", "graph", "code", "self", "../../evil", "/dev/zero", "/etc/passwd"),
    *("[/red]", "\x1b[2J\x1b[31m", "=1+1", "a" * 9000, "ä\u202e\u0301", "\ud800", "\0", "%s%n{0}{x!r}", "con\r\nx"),
    *(_RUNS, f"');{_RUNS};('", f"x\n    {_RUNS}\n", "nan", "true", "1,2", "*", "**", "${HOME}", "zoo:digits-cnn"),
)
_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 3, 2**31, 2**63, 10**30, 0.5, -0.0, 1e308, float("nan"), float("inf")),
    *([], {}, [[]], {"": None}, [0] * 50, "", "nan"),
)
Mutation = Callable[[bytes, Random], bytes]


def of_bytes(data: bytes, rng: Random) -> bytes:
    """One to four changes anywhere."""
    content = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        place = rng.randrange(len(content) + 1)
        length = rng.choice((1, 2, 4, 8, 32, max(len(content) // 4, 1)))
        kind = rng.randrange(7)
        if kind == 0 and content:
            content[min(place, len(content) - 1)] ^= 1 << rng.randrange(8)
        elif kind == 1:
            content[place : place + length] = rng.randbytes(length)
        elif kind == 2:
            del content[place : place + length]
        elif kind == 3:
            content[place:place] = content[place : place + length] * rng.choice((1, 1, 20))
        elif kind == 4:
            del content[place:]
        elif kind == 5:
            value = rng.choice((0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1))
            size = rng.choice((1, 2, 4, 8))
            content[place : place + size] = (value & (256**size - 1)).to_bytes(size, rng.choice(("little", "big")))
        else:
            content[place:place] = rng.choice(NAMES).encode("utf-8", "surrogatepass")
    return bytes(content)


def of_text(data: bytes, rng: Random) -> bytes:
    """One word or number replaced, dropped or repeated; lines in another order; or brackets without end."""
    text = data.decode("utf-8", "replace")
    words = _words(text)
    kind = rng.randrange(8)
    if kind == 0:
        return of_bytes(data, rng)
    if kind == 1:
        lines = text.split("\n")
        rng.shuffle(lines)
        return "\n".join(lines).encode()
    if kind == 2:
        bracket = rng.choice(("[", "{", "(", "not ", "-", '"', "1+"))
        place = rng.randrange(len(text) + 1)
        return (text[:place] + bracket * rng.choice((3, 300, 5000)) + text[place:]).encode()
    if words:
        start, end = rng.choice(words)
        new = {3: "", 4: text[start:end] * 2}.get(kind) if kind < 5 else rng.choice(NUMBERS if kind < 7 else NAMES)
        text = text[:start] + (new or "") + text[end:]
    return text.encode("utf-8", "surrogatepass")


def _words(text: str) -> list[tuple[int, int]]:
    import re

    return [match.span() for match in re.finditer(r"[\w.+-]+|[^\w\s]", text)]


def of_value(value: Any, rng: Random) -> Any:
    """One value of parsed JSON replaced, removed or doubled."""
    places = list(_places(value))
    if not places:
        return rng.choice(_VALUES)
    holder, key = rng.choice(places)
    kind, old = rng.randrange(6), holder[key]
    if kind == 0 and isinstance(holder, dict):
        del holder[key]
    elif kind == 0:
        holder.pop(key)
    elif kind == 1 and isinstance(holder, list):
        holder.insert(key, holder[key])
    elif kind == 1:
        holder[rng.choice(NAMES)] = holder.pop(key)
    elif kind == 2 and isinstance(old, (int, float)):
        holder[key] = old * rng.choice((-1, 2, 10, 1000, 10**6)) + rng.choice((-1, 0, 1))
    elif kind == 3:
        holder[key] = rng.choice(NAMES)
    elif kind == 4:
        holder[key] = json.loads(json.dumps(rng.choice(places)[0]))
    else:
        holder[key] = rng.choice(_VALUES)
    return value


def _places(value: Any) -> Any:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items):
        yield value, key
        yield from _places(inner)


def of_json(data: bytes, rng: Random) -> bytes:
    """A report or another JSON file: its values, or its text."""
    if rng.random() < 0.2:
        return of_text(data, rng)
    value = json.loads(data)
    for _ in range(rng.choice((1, 1, 2))):
        value = of_value(value, rng)
    return json.dumps(value).encode("utf-8", "surrogatepass")


def of_safetensors(data: bytes, rng: Random) -> bytes:
    """The header, also the JSON inside the header of a checkpoint, whose seal is made to fit; or the bytes."""
    if rng.random() < 0.25:
        return of_bytes(data, rng)
    size = int.from_bytes(data[:8], "little")
    header, rest = json.loads(data[8 : 8 + size]), data[8 + size :]
    inner = header.get("__metadata__", {}).get("snnconvert")
    if inner and rng.random() < 0.85:
        content = json.loads(inner)
        content.pop("digest", None)
        text = json.dumps(of_value(content, rng))
        if text.endswith("}"):
            sealed = f'{text[:-1]}, "digest": "{hashlib.sha256(text.encode()).hexdigest()}"}}'
            header["__metadata__"]["snnconvert"] = sealed
    else:
        header = of_value(header, rng)
    raw = json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw + rest


def of_zip(data: bytes, rng: Random) -> bytes:
    """One member changed by what it is, renamed, doubled, dropped or swollen; or the archive's bytes."""
    if rng.random() < 0.2:
        return of_bytes(data, rng)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    place, kind = rng.randrange(len(members)), rng.randrange(12)
    told = [index for index, (name, _) in enumerate(members) if name.endswith(("json", "pkl", "npy"))]
    if told and kind > 4:
        place = rng.choice(told)
    name, content = members[place]
    if kind == 0:
        members[place] = (rng.choice(NAMES).replace("\ud800", "\u00ff") or "x", content)
    elif kind == 1:
        members.insert(place, (name, content))
    elif kind == 2:
        del members[place]
    elif kind == 3:
        members[place] = (name, content + bytes(rng.choice((1, 2**20, 2**27))))
    elif kind == 4:
        members[place] = (name, b"")
    elif name.endswith(".json"):
        members[place] = (name, of_json(content, rng))
    elif name.endswith(".npy"):
        members[place] = (name, of_array(content, rng))
    else:
        members[place] = (name, of_bytes(content, rng))
    return _zipped(members)


def _zipped(members: list[tuple[str, bytes]]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in members:
            info = zipfile.ZipInfo(name.split("\0")[0] or "x")
            info.compress_type = zipfile.ZIP_DEFLATED if len(content) > 2**20 else zipfile.ZIP_STORED
            archive.writestr(info, content)
    return out.getvalue()


def of_array(data: bytes, rng: Random) -> bytes:
    """An .npy file of another shape, type or content, or one whose header lies."""
    kind = rng.randrange(5)
    if kind == 0:
        return of_bytes(data, rng)
    if kind == 1:
        size = 10 + int.from_bytes(data[8:10], "little")
        head = of_text(data[10:size], rng)[:65000]
        return data[:8] + struct.pack("<H", len(head)) + head + data[size:]
    array = np.load(io.BytesIO(data))
    if kind == 2:
        array = array.astype(rng.choice(("u1", "i8", "f2", "f8", "c8", "?", "S3", "U2", "M8[s]", "u8", "<f4", ">f4")))
    elif kind == 3:
        flat = array.reshape(-1)
        shape = rng.choice(((), (0,), (1,), (-1,), (0, 8, 8), (-1, 1), (1, -1), (1, 1, -1), (2, -1, 1, 1, 1)))
        array = flat[: int(np.prod(shape))].reshape(shape) if shape and -1 not in shape else flat.reshape(
            shape or (-1,))  # fmt: skip
    else:
        array = array.astype(np.float64)
        array.reshape(-1)[rng.randrange(array.size or 1) :][: rng.choice((1, 100))] = float(rng.choice(NUMBERS[:18]))
    out = io.BytesIO()
    np.save(out, array, allow_pickle=False)
    return out.getvalue()


def of_onnx(data: bytes, rng: Random) -> bytes:
    """One to three fields of the model's messages; or its bytes."""
    import onnx

    if rng.random() < 0.2:
        return of_bytes(data, rng)
    model = onnx.ModelProto.FromString(data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        _of_message(rng.choice(list(_messages(model))), rng)
    return bytes(model.SerializeToString())


def _messages(message: Any) -> Any:
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in value if field.is_repeated else (value,):
                yield from _messages(inner)


def _of_message(message: Any, rng: Random) -> None:
    fields = [field for field, _ in message.ListFields()] or list(message.DESCRIPTOR.fields)
    field = rng.choice(fields if rng.random() < 0.85 else list(message.DESCRIPTOR.fields))
    value = getattr(message, field.name)
    if field.is_repeated:
        kind = rng.randrange(4)
        if kind == 0 and len(value):
            del value[rng.randrange(len(value))]
        elif kind == 1 and len(value):
            value.extend([value[rng.randrange(len(value))]])
        elif kind == 2 and len(value) > 1:
            del value[rng.randrange(1, len(value)) :]
        elif field.message_type is None and len(value):
            value[rng.randrange(len(value))] = _scalar(field, value[0], rng)
        elif field.message_type is None:
            value.append(_scalar(field, None, rng))
    elif field.message_type is not None:
        message.ClearField(field.name)
    else:
        setattr(message, field.name, _scalar(field, value, rng))


def _scalar(field: Any, old: Any, rng: Random) -> Any:
    if field.cpp_type == field.CPPTYPE_STRING:
        text = rng.choice(NAMES)
        if field.type == field.TYPE_BYTES:
            return of_bytes(old or b"", rng) if rng.random() < 0.7 else text.encode("utf-8", "replace")
        return text.replace("\ud800", "\u00ff")
    if field.cpp_type in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):
        return rng.choice((0.0, -1.0, 1e38, float("nan"), float("inf"), 0.5))
    if field.cpp_type == field.CPPTYPE_ENUM:
        return rng.choice([value.number for value in field.enum_type.values])
    if field.cpp_type in (field.CPPTYPE_UINT32, field.CPPTYPE_UINT64):
        return rng.choice((0, 1, 7, 255, 2**31 - 1, 2**32 - 1))
    return rng.choice((0, 1, 2, 3, -1, 7, 100, 10**6, 2**31 - 1) if field.cpp_type == field.CPPTYPE_INT32 else (
        *(0, 1, 2, 3, -1, -2, 7, 20, 1000, 10**6, 10**9, 2**31, 2**62, -(2**63)),))  # fmt: skip


def of_picture(data: bytes, rng: Random) -> bytes:
    """Another format under this name, a size that is not true, or changed bytes."""
    kind = rng.randrange(6)
    if kind == 0:
        return rng.choice((
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n",
            b"P5 8 8 255\n" + bytes(64),
            b"P5 100000 100000 255\n" + bytes(64), b"", b"#define a_width 8\n#define a_height 8\n",
            b"GIF89a" + bytes(40),
            b"<svg/>", b"BM" + bytes(60), b"II*\0" + bytes(40), b"8BPS\0\1" + bytes(30),
        ))  # fmt: skip
    if kind == 1 and data.startswith(b"\x89PNG"):
        import zlib

        width, height = rng.choice(((1, 2**31 - 1), (2**16, 2**16), (0, 0), (1, 10**8), (8, 9), (20000, 20000)))
        head = b"IHDR" + struct.pack(">II", width, height) + data[24:29]
        return data[:12] + head + struct.pack(">I", zlib.crc32(head)) + data[33:]
    return of_bytes(data, rng)
