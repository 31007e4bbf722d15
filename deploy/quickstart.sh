#!/usr/bin/env bash
# The main job in one command: install what is missing, build, train the tutorial's ConvNet on MNIST
# with one coordinator and three workers, kill one with SIGKILL, let a new one join, and compare the
# result bit for bit with an undisturbed run.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
top=$(dirname "$here")

usage() {
    cat <<TEXT
usage: deploy/quickstart.sh [--workers N] [--epochs N] [--out DIR] [--deps]

  --workers N   workers at the start, 2 to 8 (default 3)
  --epochs N    passes over the data (default 2; 16 of the bundled subset)
  --out DIR     where logs, summary.json and story.svg go (default build/quickstart)
  --deps        only install what is needed, then stop

MNIST is looked for in \$MUSTER_DATA and ../shared/data/mnist, else downloaded from \$MUSTER_MNIST_URL (or
a public mirror) into ~/.cache/muster and checked by SHA-256; else the real subset that comes with the
project is used, and said so.
TEXT
}

workers=3 epochs="" out=$top/build/quickstart deps_only=no
while [ $# -gt 0 ]; do
    case "$1" in
        --workers | --epochs | --out)
            [ $# -ge 2 ] || { echo "quickstart: $1 needs a value" >&2; usage >&2; exit 64; }
            case "$1" in
                --workers) workers=$2 ;;
                --epochs) epochs=$2 ;;
                --out) out=$2 ;;
            esac
            shift 2 ;;
        --deps) deps_only=yes; shift ;;
        --help | -h) usage; exit 0 ;;
        *) echo "quickstart: unknown option '$1'" >&2; usage >&2; exit 64 ;;
    esac
done
for pair in "workers:$workers:2:8" "epochs:${epochs:-2}:1:1000"; do
    IFS=: read -r name value low high <<<"$pair"
    if ! [[ $value =~ ^[0-9]+$ ]] || [ "$value" -lt "$low" ] || [ "$value" -gt "$high" ]; then
        echo "quickstart: --$name $value: expected a whole number from $low to $high" >&2
        exit 64
    fi
done

# shellcheck source=deploy/packages.sh
. "$here/packages.sh"
muster_install_packages build
[ "$deps_only" = no ] || exit 0

echo "== building (build/release)"
build_log=$top/build/quickstart-build.log
mkdir -p "$top/build"
if ! { cmake -S "$top" --preset release && cmake --build "$top/build/release" --target \
        muster-coordinator muster-worker muster; } >"$build_log" 2>&1; then
    tail -30 "$build_log" >&2
    echo "quickstart: the build failed; the whole log is $build_log" >&2
    exit 69
fi
exec python3 "$here/quickstart.py" --bin "$top/build/release/bin" --workers "$workers" \
    --epochs "${epochs:-0}" --out "$out"
