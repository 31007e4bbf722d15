#!/usr/bin/env bash
# All tests in one command: installs what is missing, builds, runs everything that this host can run.
#
#   tests/run.sh [quick|full|soak [MINUTES]] [--list]
#
# Each part has a budget of minutes, printed beside what it used; a part that takes twice its budget has
# failed. The last line is `N passed, N failed, N skipped`.
set -uo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$top" || exit 69

# name | modes | budget in minutes | command. A command prints `+ passed failed skipped` as its last line.
parts() {
    cat <<'TABLE'
build    | quick full soak | 8  | part_build
tidy     | quick full soak | 1  | part_ctest asan tidy
unit     | quick full soak | 3  | part_ctest asan unit
sim      | quick full      | 6  | part_ctest asan sim
daemon   | full soak       | 3  | part_python tests/integration/test_daemon.py
net      | full soak       | 8  | part_python tests/integration/test_net.py
simhours | full            | 6  | part_ctest asan simhours
worker   | quick full soak | 3  | part_python tests/integration/test_worker.py
control  | full soak       | 6  | part_ctest asan integration
history  | full            | 10 | part_python tests/integration/histories.py
tsan     | full soak       | 6  | part_tsan
races    | full soak       | 3  | part_instrumented
histories| soak            | 240| part_python tests/integration/histories.py --all
simsoak  | soak            | 240| part_sim_soak
TABLE
}

mode=${1:-full}
soak_minutes=${2:-30}
case "$mode" in
    quick | full | soak) ;;
    --list) parts; exit 0 ;;
    *) echo "usage: tests/run.sh [quick|full|soak [MINUTES]] [--list]" >&2; exit 64 ;;
esac

export ASAN_OPTIONS=detect_leaks=1:detect_stack_use_after_return=1:halt_on_error=1:abort_on_error=0
export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
export TSAN_OPTIONS=halt_on_error=1:suppressions=$top/tests/support/tsan.supp
export LSAN_OPTIONS=suppressions=$top/tests/support/lsan.supp:print_suppressions=0
export OMP_NUM_THREADS=1
bin() { echo "$top/build/$1/bin"; }

build_preset() { # preset
    if ! { cmake --preset "$1" && cmake --build "build/$1"; } >"build/$1.log" 2>&1; then
        tail -40 "build/$1.log"
        return 1
    fi
}

part_build() {
    mkdir -p build
    local failed=0
    build_preset release || failed=$((failed + 1))
    build_preset asan || failed=$((failed + 1))
    echo "+ $((2 - failed)) $failed 0"
}

part_ctest() { # preset label
    local out=build/ctest-$1-$2.txt passed failed skipped total
    ctest --test-dir "build/$1" -L "^$2\$" -j2 --output-on-failure --no-tests=ignore >"$out" 2>&1
    grep -E 'Failed|\*\*\*|^The following' "$out" | head -20
    total=$(grep -cE '^ *[0-9]+/[0-9]+ Test +#' "$out")
    failed=$(grep -cE 'Test +#.*\*\*\*(Failed|Exception|Timeout|Not Run)' "$out")
    skipped=$(grep -cE 'Test +#.*\*\*\*Skipped' "$out")
    passed=$((total - failed - skipped))
    [ "$failed" -gt 0 ] && tail -60 "$out"
    echo "+ $passed $failed $skipped"
}

part_python() { # script args...
    if [ ! -f "$1" ]; then echo "+ 0 0 1"; return; fi
    python3 "$@" --bin "$(bin asan)" --release "$(bin release)"
}

part_tsan() {
    build_preset tsan || { echo "+ 0 1 0"; return; }
    part_ctest tsan tsan
}

part_instrumented() {
    python3 tests/integration/test_instruments.py --bin "$(bin tsan)" --release "$(bin release)"
}

part_sim_soak() {
    local failed=0
    "$(bin asan)/muster-sim" --minutes "$soak_minutes" || failed=1
    echo "+ $((1 - failed)) $failed 0"
}

# shellcheck source=deploy/packages.sh
. "$top/deploy/packages.sh"
muster_install_packages test || exit 69

passed=0 failed=0 skipped=0
export -f part_instrumented part_build part_ctest part_python part_tsan part_sim_soak build_preset bin
export top soak_minutes
while IFS='|' read -r name modes budget command; do
    name=${name// /}
    case " $modes " in *" $mode "*) ;; *) continue ;; esac
    echo "== $name (budget $((budget)) min)"
    start=$(date +%s)
    timeout --kill-after=10 $((budget * 120)) bash -c "$command" >"/tmp/muster-part.$$" 2>&1 </dev/null
    status=$?
    used=$(($(date +%s) - start))
    counts=$(grep -E '^\+ [0-9]+ [0-9]+ [0-9]+$' "/tmp/muster-part.$$" | tail -1)
    grep -vE '^\+ [0-9]+ [0-9]+ [0-9]+$' "/tmp/muster-part.$$"
    read -r _ p f s <<<"${counts:-+ 0 1 0}"
    if [ $status -ge 124 ]; then f=$((f + 1)); echo "   $name: stopped after twice its budget"; fi
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
    printf '   part %s: %d.%d of %d min, %d passed, %d failed, %d skipped\n' "$name" $((used / 60)) \
        $((used % 60 / 6)) $((budget)) "$p" "$f" "$s"
    [ "$name" = build ] && [ "$f" -gt 0 ] && break
done < <(parts)
rm -f "/tmp/muster-part.$$"
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
