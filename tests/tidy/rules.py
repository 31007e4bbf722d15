#!/usr/bin/env python3
"""The style's rules over the tree: lengths, include direction, banned calls, names at the top, words that promise.

usage: rules.py [--root FOLDER]     every finding as FILE:LINE: rule
       rules.py --selftest          each rule must find the mistake that is planted for it

The numbers are a ratchet: they may only get better.
"""
import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile

TOP = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))

COLUMNS = 100
FILE_LINES = 800
FUNCTION_LINES = 70       # a stop sign
FUNCTION_MEDIAN = 13      # over the whole tree
FUNCTION_P90 = 27
TOP_LEVEL = {"coordinator", "worker", "proto", "ckpt", "deploy", "tests", "cmake", "CMakeLists.txt", "README.md",
             "LICENSE", "CHANGELOG.md", "CMakePresets.json"}
# Who may include whom: room -> prefixes of "..." includes. tests/ may include everything, nothing includes tests/.
ROOMS = {
    "coordinator/core": {"core"},
    "coordinator/base": {"base"},
    "coordinator/client": {"client", "proto"},
    "coordinator/server": {"server", "core", "proto", "base"},
    "coordinator/cli": {"cli", "agent", "client", "proto", "ckpt", "base"},
    "proto": {"proto"},
    "ckpt": {"ckpt"},
    "worker/agent": {"agent", "base"},
    "worker/comm": {"comm"},
    "worker/data": {"data"},
    "worker/device": {"device"},
    "worker/model": {"model", "device"},
    "worker/optim": {"optim", "device"},
    "worker/train": {"train", "comm", "data", "device", "model", "optim", "client", "ckpt", "base"},
}
# Libraries that belong to one place.
OWNED = (("oneapi/dnnl", ("worker/device/cpu/",)), ("dnnl.h", ("worker/device/cpu/",)),
         ("messages.pb-c.h", ("proto/wire",)), ("protobuf-c/", ("proto/",)), ("sqlite3.h", ("coordinator/server/store.c",)),
         ("microhttpd.h", ("coordinator/server/http.c",)), ("curl/", ("coordinator/cli/fetch.c",)),
         ("uv.h", ("coordinator/server/", "coordinator/client/", "worker/comm/", "worker/train/")))
BANNED = ("strcpy", "strcat", "sprintf", "vsprintf", "gets", "atoi", "atol", "atof", "strtok", "alloca")
# Only programs log and exit.
PROGRAMS = ("coordinator/cli/", "coordinator/server/main.c", "coordinator/base/log.c", "coordinator/base/option",
            "coordinator/base/version.c", "worker/train/", "tests/")
ENDS = ("exit", "_exit", "abort", "printf", "puts", "putchar", "perror")
MAY_END = {"worker/agent/guardian.c"}  # its children end themselves
PURE = ("coordinator/core/", "worker/train/elastic", "worker/train/exchange", "worker/train/catchup", "worker/train/audit",
        "worker/comm/reduce_plan")
IMPURE = re.compile(r"\b(malloc|calloc|realloc|free|time|clock_gettime|rand|getenv|open|read|write|send|recv)\s*\(")
PROMISES = re.compile(r"\b(TODO|FIXME|XXX|HACK|stub|placeholder|for now)\b")


def tracked(root):
    if os.path.isdir(os.path.join(root, ".git")) or os.path.isfile(os.path.join(root, ".git")):
        out = subprocess.run(["git", "-C", root, "ls-files"], capture_output=True, text=True, check=True).stdout
        return [name for name in out.split("\n") if name and os.path.isfile(os.path.join(root, name))]
    return [os.path.relpath(os.path.join(folder, name), root)
            for folder, _, names in os.walk(root) for name in names]


def is_c(name):
    return name.endswith((".c", ".h"))


def without_comments(text):
    """The same lines, comments and the insides of literals blanked."""
    def blank(match):
        kept = match.group(0)
        if kept[0] in "\"'":
            return kept[0] + " " * (len(kept) - 2) + kept[-1]
        return re.sub(r"[^\n]", " ", kept)
    return re.sub(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', blank, text, flags=re.S)


def room_of(name):
    parts = name.split("/")
    return "/".join(parts[:2]) if parts[0] in ("coordinator", "worker") else parts[0]


# ---- rules: (name, text) -> [(line, sentence)] ---------------------------------------------------------

def columns(name, text):
    if not is_c(name):
        return []
    return [(i, f"{len(line)} columns, at most {COLUMNS}") for i, line in enumerate(text.split("\n"), 1)
            if len(line) > COLUMNS]


def file_lines(name, text):
    count = text.count("\n")
    return [(count, f"{count} lines, at most {FILE_LINES}")] if is_c(name) and count > FILE_LINES else []


def tabs_and_ends(name, text):
    if not is_c(name):
        return []
    wrong = [(i, "a tab, or a blank at the end of the line") for i, line in enumerate(text.split("\n"), 1)
             if "\t" in line or line != line.rstrip()]
    return wrong + ([] if text.endswith("\n") else [(text.count("\n"), "no newline at the end")])


def include_direction(name, text):
    if not is_c(name) or name.startswith("tests/"):
        return []
    room, wrong = room_of(name), []
    for match in re.finditer(r'^#\s*include\s*(["<])([^">]+)[">]', text, re.M):
        line, path = text.count("\n", 0, match.start()) + 1, match.group(2)
        if match.group(1) == '"' and "/" in path and path.split("/")[0] not in ROOMS.get(room, set()):
            wrong.append((line, f"{room} may not include \"{path}\""))
        if path.startswith(("tests/", "unit/", "sim/")):
            wrong.append((line, f"nothing includes tests: \"{path}\""))
        for library, places in OWNED:
            if path.startswith(library) and not name.startswith(places):
                wrong.append((line, f"<{path}> belongs to {' '.join(places)} alone"))
    return wrong


def calls(text, names):
    code = without_comments(text)
    for match in re.finditer(r"(?<![\w.>])(" + "|".join(names) + r")\s*\(", code):
        yield code.count("\n", 0, match.start()) + 1, match.group(1)


def banned_calls(name, text):
    return [(line, f"{call}() is banned") for line, call in calls(text, BANNED)] if is_c(name) else []


def libraries_do_not_end(name, text):
    if not is_c(name) or name.startswith(PROGRAMS) or name in MAY_END:
        return []
    return [(line, f"{call}(): only programs log and exit") for line, call in calls(text, ENDS)]


def pure_machines(name, text):
    if not is_c(name) or not name.startswith(PURE):
        return []
    code = without_comments(text)
    return [(code.count("\n", 0, m.start()) + 1, f"{m.group(1)}() in a pure machine") for m in IMPURE.finditer(code)]


def promises(name, text):
    if name.startswith("tests/tidy/") or not name.endswith((".c", ".h", ".py", ".sh", ".md", ".txt", ".cmake", ".proto")):
        return []
    return [(text.count("\n", 0, m.start()) + 1, f"'{m.group(0)}' promises what is not there")
            for m in PROMISES.finditer(text)]


def top_level(name, _):
    first = name.split("/")[0]
    return [] if first in TOP_LEVEL or first.startswith(".") else [(1, f"'{first}' has no place at the top")]


def generated(name, text):
    made = name.endswith((".pb-c.c", ".pb-c.h", ".o", ".a", ".pyc", ".orig", ".rej")) or "/build/" in f"/{name}"
    return [(1, "generated files stay in the build folder")] if made or "Generated by the " "protocol" in text else []


RULES = (columns, file_lines, tabs_and_ends, include_direction, banned_calls, libraries_do_not_end, pure_machines,
         promises, top_level, generated)


# ---- functions -----------------------------------------------------------------------------------------

def functions(root, names):
    """[(lines, name, file, line)] of all C functions, by universal-ctags."""
    out = subprocess.run(["ctags", "-x", "--_xformat=%N\t%F\t%n\t%e", "--kinds-C=f", "--fields=+ne", "-L", "-"],
                         input="\n".join(n for n in names if n.endswith(".c")), cwd=root, capture_output=True,
                         text=True, check=True).stdout
    found = []
    for row in out.splitlines():
        name, path, first, last = row.split("\t")
        if last.isdigit():
            found.append((int(last) - int(first) + 1, name, path, int(first)))
    return found


def function_lengths(found):
    wrong = [f"{path}:{line}: {name}() has {lines} lines, at most {FUNCTION_LINES}"
             for lines, name, path, line in found if lines > FUNCTION_LINES]
    lengths = sorted(lines for lines, *_ in found)
    if lengths:
        middle, p90 = statistics.median(lengths), lengths[int(0.9 * (len(lengths) - 1))]
        if middle > FUNCTION_MEDIAN:
            wrong.append(f"the median function has {middle} lines, at most {FUNCTION_MEDIAN}")
        if p90 > FUNCTION_P90:
            wrong.append(f"90 % of the functions have up to {p90} lines, at most {FUNCTION_P90}")
    return wrong


def check(root):
    wrong, names = [], tracked(root)
    for name in names:
        with open(os.path.join(root, name), errors="replace") as f:
            text = f.read()
        for rule in RULES:
            wrong += [f"{name}:{line}: {sentence}" for line, sentence in rule(name, text)]
    return wrong + function_lengths(functions(root, names))


# ---- each rule finds its mistake -------------------------------------------------------------------------

PLANTED = (
    (columns, "worker/a.c", "int x; /* " + "y" * 100 + " */\n"), (file_lines, "ckpt/a.c", "int x;\n" * 801),
    (tabs_and_ends, "ckpt/a.c", "\tint x;\n"), (tabs_and_ends, "ckpt/a.c", "int x; \n"),
    (tabs_and_ends, "ckpt/a.h", "int x;"),
    (include_direction, "coordinator/core/a.c", '#include "server/conn.h"\n'),
    (include_direction, "worker/comm/a.c", '#include "device/device.h"\n'),
    (include_direction, "worker/model/a.c", "#include <oneapi/dnnl/dnnl.h>\n"),
    (include_direction, "coordinator/client/a.c", '#include "unit/core/bench.h"\n'),
    (banned_calls, "ckpt/a.c", "void f(void) { strcpy(a, b); }\n"),
    (libraries_do_not_end, "ckpt/a.c", "void f(void) { exit(1); }\n"),
    (libraries_do_not_end, "worker/comm/a.c", 'void f(void) { printf("x"); }\n'),
    (pure_machines, "coordinator/core/a.c", "void f(void) { p = malloc(3); }\n"),
    (promises, "worker/a.c", "/* TO" + "DO: later */\n"), (top_level, "src/a.c", "int x;\n"),
    (generated, "proto/messages.pb-c.c", "int x;\n"),
)
HARMLESS = (
    (banned_calls, "ckpt/a.c", '/* strcpy(a, b) */ const char *s = "sprintf(x)"; x->gets(1);\n'),
    (libraries_do_not_end, "worker/train/main.c", "void f(void) { exit(1); }\n"),
    (include_direction, "tests/a.c", '#include "core/core.h"\n'),
    (pure_machines, "worker/train/pool.c", "void f(void) { p = malloc(3); }\n"),
)


def selftest():
    failed = [f"{rule.__name__} does not see its mistake in {name}: {text[:40]!r}"
              for rule, name, text in PLANTED if not rule(name, text)]
    failed += [f"{rule.__name__} complains about {name}: {text!r}" for rule, name, text in HARMLESS if rule(name, text)]
    with tempfile.TemporaryDirectory() as root:
        os.makedirs(os.path.join(root, "ckpt"))
        with open(os.path.join(root, "ckpt", "long.c"), "w") as f:
            f.write("int f(void)\n{\n" + "    g();\n" * 70 + "}\n")
        if not any("f() has 73 lines" in w for w in check(root)):
            failed.append("a function of 73 lines is not seen")
    return failed


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", default=TOP)
    parser.add_argument("--selftest", action="store_true")
    args = parser.parse_args()
    wrong = selftest() if args.selftest else check(args.root)
    print("\n".join(wrong))
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
