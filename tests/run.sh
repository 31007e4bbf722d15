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

# name | modes | budget in minutes, or share(fifths of MINUTES) | command. A command prints `+ passed failed skipped` as its last line.
parts() {
    cat <<'TABLE'
build    | quick full soak | 8  | part_build
tidy     | quick full soak | 1  | part_ctest asan tidy
unit     | quick full soak | 3  | part_ctest asan unit
sim      | quick full      | 6  | part_ctest asan sim
daemon   | full soak       | 3  | part_python tests/integration/test_daemon.py
net      | full soak       | 8  | part_python tests/integration/test_net.py
detect   | full            | 5  | part_python tests/integration/test_detection.py
pains    | full            | 4  | part_python tests/integration/test_pains.py
chaos    | full            | 6  | part_python tests/chaos/chaos.py --seeds 4
simhours | full            | 6  | part_ctest asan simhours
quickstart| full soak    | 3  | part_python tests/integration/test_quickstart.py
fuzz     | full            | 3  | part_fuzz 60
worker   | quick           | 3  | part_worker
worker   | full soak       | 8  | part_worker --long
control  | full soak       | 6  | part_ctest asan integration
history  | full            | 10 | part_python tests/integration/histories.py
straggler| full           | 4  | part_python tests/integration/test_straggler.py
comings  | full soak       | 3  | part_python tests/integration/comings.py
tsan     | full soak       | 6  | part_tsan
races    | full soak       | 3  | part_instrumented
histories| soak            | share(1)| part_python tests/integration/histories.py --minutes $(share 1)
sixrounds| soak            | 70 | part_python tests/integration/histories.py --all
simsoak  | soak            | share(2)| part_sim_soak
chaossoak| soak            | share(1)| part_python tests/chaos/chaos.py --minutes $(share 1) --seed $RANDOM
fuzzsoak | soak            | share(1)| part_fuzz $(($(share 1) * 60))
slowsoak | soak            | 6  | part_python tests/integration/test_straggler.py --all
deadsoak | soak            | 10 | part_python tests/integration/test_detection.py --long --only nobody
TABLE
}

# What MINUTES of a soak run are for: two fifths the simulator, one each histories of real processes, chaos, fuzzing.
share() { # fifths
    echo $((soak_minutes * $1 < 5 ? 1 : soak_minutes * $1 / 5))
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
    if ! { cmake --preset "$1" && cmake --build --preset "$1"; } >"build/$1.log" 2>&1; then
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
    local show=--output-on-failure
    [ "$2" = simhours ] && show=-V # what was struck is told, not only that it was enough
    ctest --test-dir "build/$1" -L "^$2\$" -j2 "$show" >"$out" 2>&1
    sed -nE 's/^[0-9]+: (.*(by kind:|rarest|cells struck|simulated hours).*)/   \1/p' "$out"
    grep -E 'Failed|\*\*\*|^The following' "$out" | head -20
    total=$(grep -cE '^ *[0-9]+/[0-9]+ Test +#' "$out")
    failed=$(grep -cE 'Test +#.*\*\*\*(Failed|Exception|Timeout|Not Run)' "$out")
    skipped=$(grep -cE 'Test +#.*\*\*\*Skipped' "$out")
    passed=$((total - failed - skipped))
    if [ "$total" -eq 0 ]; then echo "no test has the label $2"; failed=1; fi
    [ "$failed" -gt 0 ] && awk '/Test +#.*[*][*][*]/ { on = 1 } /^ +Start +[0-9]+:/ { on = 0 } on' "$out" | head -200
    echo "+ $passed $failed $skipped"
}

part_python() { # script args...
    if [ ! -f "$1" ]; then echo "there is no $1"; echo "+ 0 1 0"; return; fi
    python3 "$@" --bin "$(bin asan)" --release "$(bin release)"
}

# PyTorch beside it where tests/bench/run.sh has installed it; the test says so where it has not.
part_worker() { # args...
    local python=${MUSTER_VENV:-$HOME/.cache/muster/venv}/bin/python torch=()
    "$python" -c "import torch, numpy, safetensors.torch" 2>/dev/null && torch=(--torch "$python")
    part_python tests/integration/test_worker.py "$@" "${torch[@]}"
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
    "$(bin asan)/muster-sim" --minutes "$(share 2)" || failed=1
    echo "+ $((1 - failed)) $failed 0"
}

# One program of tests/fuzz from its corpus on. What it finds stays in the build folder; what it finds broken fails.
fuzz_one() { # folder seconds
    local name words=() found
    name=fuzz_$(basename "$1")
    found=build/fuzz/found/$name
    mkdir -p "$found"
    [ -f "$1/words.dict" ] && words=("-dict=$1/words.dict")
    "build/fuzz/$1/$name" "${words[@]}" -max_len=4096 -max_total_time="$2" -artifact_prefix="build/fuzz/$name-" \
        -print_final_stats=1 "$found" "$1/corpus" >"build/$name.txt" 2>&1 &&
        grep -qE 'number_of_executed_units: *[1-9]' "build/$name.txt"
}

part_fuzz() { # seconds for all of them
    local folders=(tests/fuzz/*/) passed=0 failed=0 folder name
    if ! build_preset fuzz; then echo "+ 0 1 0"; return; fi
    for folder in "${folders[@]%/}"; do
        name=fuzz_$(basename "$folder")
        if fuzz_one "$folder" $(($1 / ${#folders[@]})); then
            passed=$((passed + 1))
            echo "$name: $(awk '/number_of_executed_units/ {print $NF}' "build/$name.txt") inputs"
        else
            failed=$((failed + 1))
            tail -40 "build/$name.txt"
        fi
    done
    echo "+ $passed $failed 0"
}

# shellcheck source=deploy/packages.sh
. "$top/deploy/packages.sh"
muster_install_packages test || exit 69

passed=0 failed=0 skipped=0
export -f part_worker part_instrumented part_build part_ctest part_python part_tsan part_sim_soak part_fuzz fuzz_one share \
    build_preset bin
export top soak_minutes
while IFS='|' read -r name modes budget command; do
    name=${name// /}
    case " $modes " in *" $mode "*) ;; *) continue ;; esac
    case $budget in *share*) budget=$(share "$(tr -dc 0-9 <<<"$budget")") ;; esac
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
