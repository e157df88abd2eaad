#!/usr/bin/env bash
# Durable tasks through coreflow and through other servers on this machine. Run it with --help.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

packages=(beanstalkd redis-server nats-server)
cluster_packages=(etcd-server)

usage() {
    cat <<'HELP'
Usage: scripts/peers.sh [--no-install] [--only-clusters] [--folder DIR] [--seconds N]
       scripts/peers.sh --only-vectors [--no-install] [--vectors F.npy --queries F.npy --truth F.npy] …

Puts, reserves and acknowledges tasks of 256 bytes, on one pipelined connection each way with a
window of 1,000, and prints how many in a second: coreflow, Redis streams, beanstalkd and NATS
JetStream. Servers run on loopback, on ports that the system chooses, with their data in a folder
that is removed afterwards.

With --only-clusters it measures replicated logs instead: operations of 256 bytes in a second that
clusters of one, three and five nodes commit, 1,000 under way over two connections to each node:
puts into etcd, and coreflow's own benchmark "consensus".

With --only-vectors it measures searches of vectors instead: recall and searches a second on one core
of hnswlib, faiss, usearch, ScaNN and coreflow, on the same vectors. The libraries are installed into a
virtual environment under target/; what follows goes to scripts/vector_peers.py, which has a --help.

  --no-install   install nothing; servers that are missing are left out
  --folder DIR   where data goes: its disk is the one that is measured [default: target]
  --seconds N    how long a round takes [default: 3]

Without --no-install, missing servers are installed from the distribution (apt-get, root); those
that a package starts by itself are left as they are and not used.
HELP
}

if [ "${1:-}" = --only-vectors ]; then
    shift
    cargo build --release --locked --bin coreflow
    exec python3 scripts/vector_peers.py "$@"
fi

install=true
words=()
while [ $# -gt 0 ]; do
    case $1 in
        --help | -h) usage; exit 0 ;;
        --no-install) install=false ;;
        --only-clusters) packages=("${cluster_packages[@]}"); words+=("$1") ;;
        --folder | --seconds) words+=("$1" "${2:?$1 needs a value}"); shift ;;
        *) usage >&2; exit 2 ;;
    esac
    shift
done

missing=()
for package in "${packages[@]}"; do
    dpkg-query --show --showformat='${Status}' "$package" 2>/dev/null | grep -q "install ok" ||
        missing+=("$package")
done
if $install && [ ${#missing[@]} -gt 0 ]; then
    apt-get update
    DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "${missing[@]}"
fi

cargo build --release --locked --bin coreflow --example peers
# Some servers are installed where only root looks.
PATH=$PATH:/usr/sbin exec target/release/examples/peers "${words[@]}"
