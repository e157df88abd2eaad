#!/usr/bin/env bash
# Runs all nodes of a cluster on this machine, to try it out. Run it with --help.
set -euo pipefail

project=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
# A node that has not come so far by then is looked at by a person.
ready_within_s=60
# A node ends its tasks in server.drain_ms, 10 s; what takes longer than that is killed.
stop_within_s=30

usage() {
    cat <<'HELP'
Usage:
  scripts/cluster.sh [--config FILE.toml] [--folder DIR] [--set KEY=VALUE]…

Builds the release program if it is missing or older than its sources, starts one `coreflow serve`
for each [[node]] of the file, waits until all are ready, and says where they listen. It ends them
when it ends: with Ctrl-C or SIGTERM. A node that dies is left dead, so that you can watch the
others go on; the command that starts it again is printed, and works from another terminal.

  --config FILE    a tuning file with a [[node]] list (default: tuning/cluster-3.toml; with
                   tuning/cluster-4-pbft.toml the nodes agree by PBFT, with keys that are made in
                   the folder when they are not there)
  --folder DIR     where the nodes keep their logs and what they say (default: coreflow-cluster);
                   a cluster that was there before goes on
  --set KEY=VALUE  is handed on to every node

Environment:
  COREFLOW          the program, in place of the release build
  CARGO_TARGET_DIR  where the program is built (default: target/ of the project)

Exit codes: 0 it was told to stop, 1 a node did not start, 2 wrong usage.
HELP
}

say() { printf 'cluster: %s\n' "$*" >&2; }
fail() {
    say "$1"
    exit "${2:-1}"
}

config=$project/tuning/cluster-3.toml folder=coreflow-cluster
settings=()
while (($# > 0)); do
    case $1 in
    --help | -h) usage; exit 0 ;;
    --config | --folder | --set)
        (($# > 1)) || fail "$1 needs a value; see --help" 2
        case $1 in
        --config) config=$2 ;;
        --folder) folder=$2 ;;
        --set) settings+=(--set "$2") ;;
        esac
        shift 2
        ;;
    *) fail "$1 is not known; see --help" 2 ;;
    esac
done
[[ -r $config ]] || fail "$config cannot be read" 2
config=$(cd -- "$(dirname -- "$config")" && pwd)/$(basename -- "$config")

build() {
    local target=${CARGO_TARGET_DIR:-$project/target} newer=
    [[ $target == /* ]] || target=$PWD/$target
    program=$target/release/coreflow
    if [[ -x $program ]]; then
        newer=$(find "$project/src" "$project/Cargo.toml" "$project/Cargo.lock" \
            -newer "$program" -print -quit)
        [[ -n $newer ]] || return 0
    fi
    say 'building the release program'
    (cd "$project" && CARGO_TARGET_DIR=$target cargo build --release --locked --bin coreflow) >&2
}

if [[ -n ${COREFLOW:-} ]]; then program=$COREFLOW; else build; fi

# The number, HTTP and MessagePack-RPC address of each [[node]], a line each; before them the protocol.
read_config() {
    "$program" config print --config "$config" "${settings[@]}" | awk '
    $1 == "protocol" { gsub(/"/, "", $3); print $3 }
    function done_with() { if (id != "") print id, http, rpc; id = http = rpc = "" }
    /^\[/ { done_with(); inside = ($0 ~ /^\[\[node\]\]/) }
    inside && $1 == "id" { id = $3 }
    inside && $1 == "http" { gsub(/"/, "", $3); http = $3 }
    inside && $1 == "rpc" { gsub(/"/, "", $3); rpc = $3 }
    END { done_with() }
    '
}
read_nodes=$(read_config) || fail "$config is not a tuning file that can be used" 2
protocol=${read_nodes%%$'\n'*}
nodes=$(tail -n +2 <<<"$read_nodes")
[[ -n $nodes ]] || fail "$config lists no [[node]]" 2

mkdir -p -- "$folder"
folder=$(cd -- "$folder" && pwd)
while read -r number _; do
    # The file names the process that has the log, also after that has died.
    other=$(cat -- "$folder/node-$number/lock" 2>/dev/null || true)
    if [[ $other =~ ^[0-9]+$ ]] && [[ $(readlink "/proc/$other/exe") == "$(realpath "$program")" ]]; then
        fail "node $number of $folder runs already (process $other); stop it, or take another --folder"
    fi
done <<<"$nodes"

# Nodes that agree by PBFT sign: each has its key in the folder, and knows the keys of all.
if [[ $protocol == pbft ]]; then
    while read -r number _; do
        key=$("$program" cluster identity "$folder/node-$number.key") || exit 1
        settings+=(--set "node.$number.public_key=$key")
    done <<<"$nodes"
fi

declare -A pids=() https=() rpcs=()
stopping=

stop() {
    local number waited=0
    stopping=1
    trap '' INT TERM
    for number in "${!pids[@]}"; do
        kill -TERM "${pids[$number]}" 2>/dev/null || true
    done
    while ((waited < stop_within_s * 10)) && [[ -n $(jobs -pr) ]]; do
        sleep 0.1
        waited=$((waited + 1))
    done
    for number in "${!pids[@]}"; do
        kill -KILL "${pids[$number]}" 2>/dev/null && say "node $number did not stop and was killed"
    done
    wait
}
trap stop EXIT
trap 'exit 0' INT TERM

# The words that start a node.
words() {
    node_words=("$program" serve --config "$config" "${settings[@]}"
        --set "cluster.node=$1" --set "log.folder=$folder/node-$1")
    if [[ $protocol == pbft ]]; then
        node_words+=(--set "consensus.identity_file=$folder/node-$1.key")
    fi
}

is_ready() { # its /readyz answers 200
    local answer=
    exec 3<>"/dev/tcp/${1%:*}/${1##*:}" || return 1
    printf 'GET /readyz HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n' "$1" >&3
    IFS= read -r -t 5 answer <&3 || true
    exec 3<&-
    [[ $answer == *' 200 '* ]]
} 2>/dev/null

# None is ready without a majority, so that one that did not start is looked for first.
all_live() {
    local number
    for number in "${!pids[@]}"; do
        kill -0 "${pids[$number]}" 2>/dev/null && continue
        say "node $number did not start:"
        tail -n 5 -- "$folder/node-$number.log" >&2
        exit 1
    done
}

while read -r number http rpc; do
    words "$number"
    # Its own group, so that Ctrl-C reaches this script alone, which then stops all.
    setsid "${node_words[@]}" >>"$folder/node-$number.out" 2>>"$folder/node-$number.log" &
    pids[$number]=$! https[$number]=$http rpcs[$number]=$rpc
done <<<"$nodes"

began=$SECONDS
for number in $(printf '%s\n' "${!pids[@]}" | sort -n); do
    all_live
    until is_ready "${https[$number]}"; do
        all_live
        ((SECONDS - began < ready_within_s)) ||
            fail "node $number is not ready after $ready_within_s s; see $folder/node-$number.log"
        sleep 0.1
    done
    echo "node $number (process ${pids[$number]}): MessagePack-RPC ${rpcs[$number]}, http://${https[$number]}/, log $folder/node-$number.log"
done
first=$(printf '%s\n' "${!pids[@]}" | sort -n | head -n 1)
words "$first"
look=(--set "cluster.node=$first")
[[ $protocol != pbft ]] || look+=(--set "consensus.identity_file=$folder/node-$first.key")
echo "ready; look at it with: $program cluster status --config $config ${settings[*]@Q} ${look[*]@Q}"

# Until it is told to stop: says which nodes end.
while ((${#pids[@]} > 0)); do
    wait -n -p ended "${pids[@]}" && status=0 || status=$?
    [[ -z $stopping ]] || exit 0
    for number in "${!pids[@]}"; do
        [[ ${pids[$number]} == "${ended:-}" ]] || continue
        unset "pids[$number]"
        words "$number"
        say "node $number ended with $status; start it again with:"
        printf '    cd %q && %s\n' "$PWD" "${node_words[*]@Q}" >&2
    done
done
fail 'no node is left'
