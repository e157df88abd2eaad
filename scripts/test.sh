#!/usr/bin/env bash
# Runs every test; installs or builds what it needs under target/. Run it with --help.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
    cat <<'EOF'
Usage: scripts/test.sh [--build | --help]

Runs every test and prints what passed, failed or was skipped, and why:
  build     all of the following, and the virtual environments of `python`
  unit      unit and property tests, and what examples, benches and documentation have
  tests     one of tests/: real nodes, and the program (each is a part)
  python    real clients against a real server (each script of tests/python is a part, and two run at a time)
and beside these three, with what they leave of the processors:
  simulator 300 and 60 seeds of a cluster by Raft and by PBFT, and bugs planted in it that must be found
  memory    the rings, kernels, rows and walks of the vector index, and maps and files of pattern memory,
            under valgrind, where it is installed
  gossip    60 seeds of gossip, and bugs planted in it that must be found
  pbft      300 seeds of Byzantine agreement with lying replicas, its model, and bugs planted in it that
            must be found
  loom      rings and parking under all interleavings (tests/loom)

--build builds all of it, and runs nothing.
COREFLOW=/PATH/TO/coreflow has `python` test that program instead of one that is built as the tests are,
without what only they have.

Parts are told in their order, whichever ends first. Everything it builds or installs is under target/,
and what each part printed in target/test-logs/. The end of what failed is printed again before the
summary. Exit code 1 when something failed.
EOF
}

logs=$PWD/target/test-logs
summary=()
failed=()

# A part is called as its function and the words behind it: `python test_auth.py`. This is the file that
# keeps what it printed.
log_of() {
    echo "$logs/${1// /-}.log"
}

# ended NAME SECONDS CODE: notes how a part ended, and how long it took.
ended() {
    if [ "$3" -eq 0 ]; then
        summary+=("passed   $1 ($2 s)")
    else
        summary+=("FAILED   $1 ($2 s): $(log_of "$1")")
        failed+=("$1")
    fi
}

# part NAME: runs a part, prints what it says and keeps it.
part() {
    local start=$SECONDS code=0
    echo "== $1"
    # Not a pipe: that would wait for whatever a test left running.
    $1 > >(tee "$(log_of "$1")") 2>&1 || code=$?
    ended "$1" $((SECONDS - start)) $code
}

skip() {
    echo "== $1: skipped: $2"
    summary+=("skipped  $1: $2")
}

# lanes COUNT NAME...: runs parts in their order, so many at a time; `report` tells of them. Each is a process of
# its own that xargs starts, since bash would let what it starts itself be deaf to SIGINT.
lanes() {
    printf '%s\n' "${@:2}" | xargs -P "$1" -d '\n' -n 1 scripts/test.sh --keep
}

# keep NAME: runs one of the `lanes`.
keep() {
    local start=$SECONDS code=0 log
    log=$(log_of "$1")
    $1 >>"$log" 2>&1 || code=$?
    echo "$((SECONDS - start)) $code" >"$log.ended"
}

# report PID NAME...: prints what the parts say that a process runs, one after the other, while they do.
report() {
    local pid=$1 name log seconds code
    shift
    for name in "$@"; do
        log=$(log_of "$name")
        echo "== $name"
        until_ended "$log" "$pid" &
        tail -n +1 -f -s 0.2 --pid=$! "$log"
        read -r seconds code <"$log.ended" || { seconds=0 code=1; }
        ended "$name" "$seconds" "$code"
    done
}

# Until a part has ended, or whoever runs it has without it.
until_ended() {
    while ! [ -e "$1.ended" ] && kill -0 "$2" 2>/dev/null; do sleep 0.2; done
}

# A process and all that descend from it, these first.
tree() {
    local child
    for child in $(cat "/proc/$1/task/"*/children 2>/dev/null); do tree "$child"; done
    echo "$1"
}

# One build for all tests: optimized as what is shipped, without the slow steps of that, with the bugs
# that simulators plant, which are there only for threads that ask for one, and with the liar of
# test_pbft_liars.py. The program that `python` drives has neither, as what is shipped.
checked() {
    cargo test --profile checked --features planted-bugs,byzantine --locked "$@"
}

# Cargo has one place for both programs, and the latter stays there: whatever starts the program beside
# it has it from a place of its own.
build() {
    if [ -z "${COREFLOW:-}" ]; then
        cargo build --profile checked --locked &&
            cp target/checked/coreflow target/checked/coreflow-plain || return 1
    fi
    checked --all-targets --no-run &&
        cp target/checked/coreflow target/checked/coreflow-byzantine &&
        loom --no-run || return 1
    ! makes_environments || environments
}

unit() {
    checked --lib --bins --examples --benches && checked --doc
}

tests() {
    checked --test "$1"
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
        cargo test --release --locked "$@")
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

makes_environments() {
    python3 -c 'import venv, ensurepip' 2>/dev/null
}

# environment REQUIREMENTS: the virtual environment of a file of requirements.
environment() {
    echo "target/venv-$(basename "$1" .txt)"
}

environments() {
    local requirements venv
    for requirements in tests/python/requirements-*.txt; do
        venv=$(environment "$requirements")
        if ! cmp -s "$requirements" "$venv/installed.txt"; then
            python3 -m venv --clear "$venv" &&
                "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$requirements" &&
                cp "$requirements" "$venv/installed.txt" || return 1
        fi
    done
}

# None takes that long unless it hangs.
python() {
    local era=legacy
    [[ $1 != *modern* ]] || era=modern
    timeout 300 "$(environment "requirements-$era")/bin/python" "tests/python/$1"
}

case "${1:-}" in
    "") ;;
    --build) build; exit ;;
    # From `lanes`.
    --keep) keep "$2"; exit ;;
    --help | -h) usage; exit ;;
    *) usage >&2; exit 2 ;;
esac

rm -rf "$logs"
mkdir -p "$logs"
# What waits more than it computes; and what computes and does nothing else: it may wait, and comes to the
# same. The longest first, so that not one of them is left at the end while a processor rests.
rust=(unit "tests cluster" "tests node" "tests measure")
for name in $(cd tests && echo *.rs */main.rs); do
    name=${name%/main.rs} name=${name%.rs}
    case $name in
        cluster | node | measure | sim | gossip | pbft) ;;
        *) rust+=("tests $name") ;;
    esac
done
clients=()
computing=(simulator memory gossip pbft loom)
if ! command -v valgrind >/dev/null; then
    computing=(simulator gossip pbft loom)
    skip memory "valgrind is not installed (apt install valgrind)"
fi

if ! makes_environments; then
    skip python "python3 cannot make virtual environments (apt install python3-venv)"
else
    clients+=("python test_pbft_liars.py")
    for test in $(cd tests/python && echo test_*.py); do
        [ "$test" = test_pbft_liars.py ] || clients+=("python $test")
    done
fi

part build
if [ ${#failed[@]} -eq 0 ]; then
    export COREFLOW=${COREFLOW:-$PWD/target/checked/coreflow-plain}
    export COREFLOW_BYZANTINE=$PWD/target/checked/coreflow-byzantine
    waiting=("${rust[@]}" "${clients[@]}")
    for name in "${waiting[@]}" "${computing[@]}"; do : >"$(log_of "$name")"; done
    pids=()
    trap 'for pid in "${pids[@]}"; do kill -- "-$pid" $(tree "$pid") 2>/dev/null || true; done' EXIT
    # Groups of their own, which a SIGINT to this script does not reach before it has ended them in order.
    set -m
    # Tests of this crate have threads enough of their own; a client waits for its server most of the time.
    (lanes 1 "${rust[@]}"; [ ${#clients[@]} -eq 0 ] || lanes 2 "${clients[@]}") &
    pids+=($!)
    (renice -n 19 "$BASHPID" >/dev/null && lanes 1 "${computing[@]}") &
    pids+=($!)
    set +m
    report "${pids[0]}" "${waiting[@]}"
    report "${pids[1]}" "${computing[@]}"
    # They have ended, and their numbers may be those of others.
    trap - EXIT
fi

# What failed is told again at the end: the rest is long, and whoever keeps its end only keeps this.
for name in "${failed[@]}"; do
    printf '\n== the end of %s\n' "$(log_of "$name")"
    tail -n 40 "$(log_of "$name")"
done
echo
printf '%s\n' "${summary[@]}"
[ ${#failed[@]} -eq 0 ]
