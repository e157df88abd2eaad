#!/usr/bin/env bash
# Runs every test; installs or builds what it needs under target/. Run it with --help.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
    cat <<'EOF'
Usage: scripts/test.sh [--help]

Runs every test and prints what passed, failed or was skipped, and why:
  build     all of the following
  rust      unit, property and integration tests, examples and documentation
  python    real clients against a real server (tests/python), in virtual environments
and beside these, with what they leave of the processors:
  simulator 300 and 60 seeds of a cluster by Raft and by PBFT, and bugs planted in it that must be found
  gossip    60 seeds of gossip, and bugs planted in it that must be found
  pbft      300 seeds of Byzantine agreement with lying replicas, its model, and bugs planted in it that
            must be found
  loom      rings and parking under all interleavings (tests/loom)
  memory    the rings, kernels, rows and walks of the vector index, and maps and files of pattern memory,
            under valgrind, where it is installed

COREFLOW=/PATH/TO/coreflow has `python` test that program instead of target/checked/coreflow.

Everything it builds or installs is under target/, and what each part printed in target/test-logs/. The
end of what failed is printed again before the summary. Exit code 1 when something failed.
EOF
}

case "${1:-}" in
    "") ;;
    --help | -h) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
esac

logs=$PWD/target/test-logs
rm -rf "$logs"
mkdir -p "$logs"
summary=()
failed=()

# ended NAME LOG SECONDS CODE: notes how a part ended, and how long it took.
ended() {
    if [ "$4" -eq 0 ]; then
        summary+=("passed   $1 ($3 s)")
    else
        summary+=("FAILED   $1 ($3 s): $2")
        failed+=("$2")
    fi
}

# part NAME COMMAND...: runs a part, prints what it says and keeps it.
part() {
    local name=$1 start=$SECONDS log="$logs/${1// /-}.log" code=0
    shift
    echo "== $name"
    # Not a pipe: that would wait for whatever a test left running.
    "$@" > >(tee "$log") 2>&1 || code=$?
    ended "$name" "$log" $((SECONDS - start)) $code
}

skip() {
    echo "== $1: skipped: $2"
    summary+=("skipped  $1: $2")
}

# Parts that compute and do nothing else: they may wait for the others, and come to the same.
beside=(simulator gossip pbft loom)

# Runs them one after the other. What they print, and how they end, is told by `report_beside`.
run_beside() {
    local name start code
    renice -n 19 "$BASHPID" >/dev/null
    for name in "${beside[@]}"; do
        start=$SECONDS code=0
        "$name" >"$logs/$name.log" 2>&1 || code=$?
        echo "$((SECONDS - start)) $code" >"$logs/$name.ended"
    done
}

report_beside() {
    local name seconds code
    for name in "${beside[@]}"; do
        echo "== $name"
        # Until whoever runs them has ended, if not all of them have.
        while ! [ -e "$logs/$name.ended" ] && kill -0 "$beside_pid" 2>/dev/null; do sleep 0.2; done
        cat "$logs/$name.log" || true
        read -r seconds code <"$logs/$name.ended" || { seconds=0 code=1; }
        ended "$name" "$logs/$name.log" "$seconds" "$code"
    done
}

# One build for all tests: optimized as what is shipped, without the slow steps of that, with the bugs
# that simulators plant, which are there only for threads that ask for one, and with the liar of
# test_pbft_liars.py. The program that `python` drives has neither, as what is shipped.
checked() {
    cargo test --profile checked --features planted-bugs,byzantine --locked "$@"
}

build() {
    checked --all-targets --no-run &&
        cp target/checked/coreflow target/checked/coreflow-byzantine || return 1
    export COREFLOW_BYZANTINE=$PWD/target/checked/coreflow-byzantine
    if [ -z "${COREFLOW:-}" ]; then
        cargo build --profile checked --locked || return 1
        export COREFLOW=$PWD/target/checked/coreflow
    fi
}

# All but the simulators.
rust() {
    local name tests=()
    for name in tests/*.rs tests/*/main.rs; do
        name=${name#tests/} name=${name%/main.rs} name=${name%.rs}
        case $name in
            sim | gossip | pbft) ;;
            *) tests+=(--test "$name") ;;
        esac
    done
    checked --lib --bins --examples --benches "${tests[@]}" && checked --doc
}

simulator() {
    checked --test sim && checked --test sim -- --planted
}

gossip() {
    checked --test gossip && checked --test gossip -- --planted
}

pbft() {
    checked --test pbft && checked --test pbft -- --planted
}

loom() {
    (cd tests/loom && CARGO_TARGET_DIR=../../target/loom RUSTFLAGS="--cfg loom" \
        cargo test --release --locked)
}

# Two threads over real rings, the vector index with instructions that valgrind knows (AVX2), and mapped
# record files, read by cores while a thread writes, with every access to memory checked.
memory() {
    local binary
    binary=$(checked --lib --no-run --message-format=json 2>/dev/null |
        sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
    valgrind --quiet --error-exitcode=1 --leak-check=full --errors-for-leak-kinds=definite \
        --fair-sched=try \
        "$binary" runtime::ring runtime::mesh wire::batch shard::links \
        memory::index::tests::kernels graph::an_index_that_was_emptied image::only_rows_that \
        coarse::the_last_row coarse::a_row_that_does_not coarse::clusters_that_came \
        steps::an_insertion_in_steps late::an_image_leaves \
        graph::rows_of_removed_vectors steps::rows_rest_while store::region store::watermark \
        damage::a_bit_that_flips model::segments_are_freed model::a_segment_whose model::memory_alone \
        searches::a_namespace_is searches::the_nearest shard::memory::tests::cold_records \
        --test-threads=1
}

# python TEST REQUIREMENTS: runs a script in the virtual environment of its requirements.
python() {
    local test=$1 requirements=$2 venv
    venv=target/venv-$(basename "$requirements" .txt)
    if ! cmp -s "$requirements" "$venv/installed.txt"; then
        python3 -m venv --clear "$venv" &&
            "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$requirements" &&
            cp "$requirements" "$venv/installed.txt" || return 1
    fi
    timeout 300 "$venv/bin/python" "$test"
}

part build build
if [ ${#failed[@]} -eq 0 ]; then
    if command -v valgrind >/dev/null; then
        beside+=(memory)
    else
        skip memory "valgrind is not installed (apt install valgrind)"
    fi
    # A group of its own, which is ended with this script.
    set -m
    run_beside &
    beside_pid=$!
    set +m
    trap 'kill -- "-$beside_pid" 2>/dev/null || true' EXIT
    part rust rust
    if python3 -c 'import venv, ensurepip' 2>/dev/null; then
        for test in tests/python/test_*.py; do
            case $test in
                *modern*) requirements=tests/python/requirements-modern.txt ;;
                *) requirements=tests/python/requirements-legacy.txt ;;
            esac
            part "python $(basename "$test")" python "$test" "$requirements"
        done
    else
        skip python "python3 cannot make virtual environments (apt install python3-venv)"
    fi
    report_beside
fi

# What failed is told again at the end: the rest is long, and whoever keeps its end only keeps this.
for log in "${failed[@]}"; do
    printf '\n== the end of %s\n' "$log"
    tail -n 40 "$log"
done
echo
printf '%s\n' "${summary[@]}"
[ ${#failed[@]} -eq 0 ]
