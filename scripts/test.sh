#!/usr/bin/env bash
# Runs every test; installs or builds what it needs under target/. Run it with --help.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
    cat <<'EOF'
Usage: scripts/test.sh [--help]

Runs every test and prints what passed, failed or was skipped, and why:
  rust      unit, property and integration tests, examples and documentation
  simulator bugs planted in a cluster's code that its simulator must find, by Raft and by PBFT; 300 and 60
            seeds run with `rust`
  gossip    bugs planted in gossip that its simulator must find; its seeds run with `rust`
  pbft      bugs planted in Byzantine agreement that its simulator and its model must find; 300 seeds with
            lying replicas and the model itself run with `rust`
  loom      rings and parking under all interleavings (tests/loom)
  memory    the rings, kernels and rows of the vector index, and maps and files of pattern memory, under
            valgrind, where it is installed
  python    real clients against a real server (tests/python), in virtual environments

Everything it builds or installs is under target/, and what each part printed in target/test-logs/. The
end of what failed is printed again before the summary. Exit code 1 when something failed.
EOF
}

case "${1:-}" in
    "") ;;
    --help | -h) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
esac

logs=target/test-logs
rm -rf "$logs"
mkdir -p "$logs"
summary=()
failed=()

# part NAME COMMAND...: runs a part, keeps what it prints, and notes how it ended and how long it took.
part() {
    local name=$1 start=$SECONDS log="$logs/${1// /-}.log"
    shift
    echo "== $name"
    # Not a pipe: that would wait for whatever a test left running.
    if "$@" > >(tee "$log") 2>&1; then
        summary+=("passed   $name ($((SECONDS - start)) s)")
    else
        summary+=("FAILED   $name ($((SECONDS - start)) s): $log")
        failed+=("$log")
    fi
}

skip() {
    echo "== $1: skipped: $2"
    summary+=("skipped  $1: $2")
}

# One build for all tests: optimized as what is shipped, without the slow steps of that, and with the
# bugs that the simulator plants; they are there only for threads that ask for one. The program that
# `python` drives has none of them, as what is shipped.
checked() {
    cargo test --profile checked --features planted-bugs --locked "$@"
}

rust() {
    checked --all-targets && checked --doc
}

# The seeds run with the rest of `rust`.
simulator() {
    checked --test sim -- --planted
}

gossip() {
    checked --test gossip -- --planted
}

pbft() {
    checked --test pbft -- --planted
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
        graph::rows_of_removed_vectors steps::rows_rest_while store::region store::watermark \
        damage::a_bit_that_flips model::segments_are_freed model::a_segment_whose model::memory_alone \
        searches::a_namespace_is searches::the_nearest shard::memory::tests::cold_records \
        --test-threads=1
}

# The program that can lie, and the one that cannot.
build_programs() {
    cargo build --profile checked --locked --features byzantine &&
        cp target/checked/coreflow target/checked/coreflow-byzantine &&
        cargo build --profile checked --locked
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

part rust rust
part simulator simulator
part gossip gossip
part pbft pbft
part loom loom
if command -v valgrind >/dev/null; then
    part memory memory
else
    skip memory "valgrind is not installed (apt install valgrind)"
fi
if python3 -c 'import venv, ensurepip' 2>/dev/null; then
    # Of four nodes that agree by PBFT one runs the program that can lie.
    rm -f target/checked/coreflow-byzantine
    part build build_programs
    export COREFLOW=$PWD/target/checked/coreflow
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

# What failed is told again at the end: the rest is long, and whoever keeps its end only keeps this.
for log in "${failed[@]}"; do
    printf '\n== the end of %s\n' "$log"
    tail -n 40 "$log"
done
echo
printf '%s\n' "${summary[@]}"
[ ${#failed[@]} -eq 0 ]
