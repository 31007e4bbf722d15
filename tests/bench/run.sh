#!/usr/bin/env bash
# Measures. One row per figure: ours, the peer's in the same run, the ratio, the goal, the spread.
#
#   tests/bench/run.sh [--list] [--json FILE] [--quick] [--report-only] [NAME...]
#
# Ends with 1 when a goal was missed or something could not be measured; --report-only: only in the latter case.
# control has the simulator's figures too, which sim prints alone; parity compares with PyTorch, number by number.
# Builds what it measures. PyTorch, the peer, is installed into an environment of its own outside the tree
# (MUSTER_VENV, default ~/.cache/muster/venv); where that cannot be done its rows are left out, and that is said.
set -uo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$top" || exit 69

parts="control sim worker parity main recovery"
json="" quick="" report="" names=""
usage() {
    cat <<TEXT
usage: tests/bench/run.sh [--list] [--json FILE] [--quick] [--report-only] [NAME...]

  --list         the names of the parts: $parts
  --json FILE    the rows, for programs
  --quick        fewer rounds
  --report-only  a missed goal is told and is no failure; without it the exit code is 1

control has the simulator's figures too (sim prints those alone); parity compares gradients, losses and accuracies
with PyTorch's, live.
TEXT
}
while [ $# -gt 0 ]; do
    case "$1" in
        --list) tr ' ' '\n' <<<"$parts"; exit 0 ;;
        --json) [ $# -gt 1 ] || { usage >&2; exit 64; }; json=$(realpath -m "$2"); shift ;;
        --quick) quick=--quick ;;
        --report-only) report=--report-only ;;
        --help | -h) usage; exit 0 ;;
        *)
            case " $parts " in
                *" $1 "*) names="$names $1" ;;
                *) echo "tests/bench/run.sh: there is no part '$1'" >&2; usage >&2; exit 64 ;;
            esac ;;
    esac
    shift
done
names=${names:-$parts}
case " $names " in
    *" sim "*) ;;
    *" control "*) names=${names/control/control sim} ;;
esac

# shellcheck source=deploy/packages.sh
. deploy/packages.sh
muster_install_packages bench || exit 69
mkdir -p build
presets="release asan"
case " $names " in *" recovery "*) presets="$presets faults" ;; esac
for preset in $presets; do
    echo "== building ($preset)"
    { cmake --preset "$preset" && cmake --build "build/$preset"; } >"build/bench-$preset.log" 2>&1 ||
        { tail -20 "build/bench-$preset.log"; exit 69; }
done

# The peers. What cannot be installed is skipped by the parts, with a plain word.
export MUSTER_VENV=${MUSTER_VENV:-$HOME/.cache/muster/venv}
peer() { # MODULE PACKAGES...
    "$MUSTER_VENV/bin/python" -c "import $1" 2>/dev/null && return
    echo "== installing $1 into $MUSTER_VENV (once)"
    { python3 -m venv "$MUSTER_VENV" && "$MUSTER_VENV/bin/pip" install --quiet "${@:2}"; } >"build/bench-$1.log" 2>&1 ||
        echo "   $1 could not be installed (see build/bench-$1.log): its rows are left out"
}
case " $names " in *" control "* | *" worker "* | *" parity "* | *" main "*) peer torch torch numpy ;; esac
case " $names " in *" parity "*) peer safetensors safetensors ;; esac
case " $names " in *" main "*) peer torchft torchft ;; esac

status=0 rows=()
for name in $names; do
    echo "== $name"
    bin=build/release/bin
    [ "$name" = sim ] && bin=build/asan/bin
    [ "$name" = recovery ] && bin=build/faults/bin
    python3 "tests/bench/$name.py" --bin "$top/$bin" --json "build/bench-$name.json" $quick $report || status=1
    rows+=("build/bench-$name.json")
done
if [ -n "$json" ]; then
    python3 - "$json" "${rows[@]}" <<'PY' || status=1
import json, os, platform, sys
parts = [json.load(open(name))["rows"] for name in sys.argv[2:] if os.path.exists(name)]
with open(sys.argv[1], "w") as f:
    json.dump({"machine": platform.processor() or platform.machine(), "cores": os.cpu_count(),
               "rows": [row for part in parts for row in part]}, f, indent=1)
PY
    echo "written to $json"
fi
exit $status
