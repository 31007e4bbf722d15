"""safetensors files with the standard library alone, and how two of them differ."""
import array
import json
import math
import struct
import sys

CODES = {"F32": "f", "F64": "d", "I64": "q", "U8": "B"}


def load(path):
    """{name: (type, shape, array)} in the order of the file's header."""
    with open(path, "rb") as f:
        length = struct.unpack("<Q", f.read(8))[0]
        header = json.loads(f.read(length))
        data = f.read()
    tensors = {}
    for name, row in header.items():
        if name == "__metadata__":
            continue
        begin, end = row["data_offsets"]
        values = array.array(CODES[row["dtype"]])
        values.frombytes(data[begin:end])
        if sys.byteorder == "big":
            values.byteswap()
        tensors[name] = (row["dtype"], tuple(row["shape"]), values)
    return tensors


def header_of(path):
    """(length of the header, its JSON text) as they stand in the file."""
    with open(path, "rb") as f:
        length = struct.unpack("<Q", f.read(8))[0]
        return length, f.read(length).decode()


def save(path, tensors, metadata=None, align=8):
    """The layout of the Python library `safetensors`: compact JSON, padded with spaces to 8 bytes, data without
    holes in the order of falling alignment, then of names."""
    rows, data = {}, b""
    if metadata:
        rows["__metadata__"] = metadata
    for name in sorted(tensors, key=lambda n: (-tensors[n][2].itemsize, n)):
        kind, shape, values = tensors[name]
        raw = values.tobytes()
        rows[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(rows, separators=(",", ":")).encode()
    text += b" " * (-len(text) % align)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data)


def difference(one, other):
    """The first tensor that differs, with place and both values; None = the same bits."""
    a, b = load(one), load(other)
    if list(a) != list(b):
        return f"tensors {list(a)} and {list(b)}"
    for name in a:
        if a[name][:2] != b[name][:2]:
            return f"tensor {name}: {a[name][:2]} and {b[name][:2]}"
        if a[name][2].tobytes() == b[name][2].tobytes():
            continue
        pairs = list(zip(a[name][2], b[name][2]))
        bits = struct.Struct("=" + a[name][2].typecode)
        wrong = [i for i, (x, y) in enumerate(pairs) if bits.pack(x) != bits.pack(y)]
        x, y = pairs[wrong[0]]
        return (f"tensor {name}: {len(wrong)} of {len(pairs)} elements differ, first [{wrong[0]}]: "
                f"{x!r} and {y!r}")
    return None


def relative_l2(got, want):
    """|got - want| / |want|"""
    distance = math.sqrt(math.fsum((x - y) ** 2 for x, y in zip(got, want)))
    norm = math.sqrt(math.fsum(y * y for y in want))
    return distance / norm if norm else distance
