#!/usr/bin/env bash
# Runs coreflow pinned to its cores, on a host that is as quiet as it may be made.
#
# What is changed on the host is changed only by `apply`, saved first, and put back by `undo`.
# Everything else reads, warns and goes on: a laptop, a container and a rented virtual machine
# must run the same command as bare metal.
set -euo pipefail

project=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
# Tests put a made-up /proc and /sys below this folder.
sysroot=${COREFLOW_PIN_SYSROOT:-}
# Host tuning is lost at a restart, and so is what lies in /run.
state=$sysroot/run/coreflow-pin.state
# One above the lowest real-time priority: above every ordinary thread, below the kernel's own.
rt_priority=2

usage() {
    cat <<'HELP'
Usage:
  scripts/pin.sh                             serve with tuning/default.toml
  scripts/pin.sh FILE.toml [COMMAND [ARG…]]  run another tuning or command (serve, bench …, run …)
  scripts/pin.sh check [--json] [FILE.toml]  tell how the host is set, and what would be better
  scripts/pin.sh plan [FILE.toml]            print what apply would change, and change nothing
  scripts/pin.sh apply [FILE.toml]           tune the host (root): frequency governor, interrupts,
                                             huge pages, swappiness; old values are saved
  scripts/pin.sh undo                        put the saved values back

A run builds the release program if it is missing or older than its sources, raises the limits for
locked memory and open files as far as it may, and pins the program to the configured cores. Without
root, in a virtual machine or with fewer cores than configured it warns on stderr and still runs.

Environment:
  CARGO_TARGET_DIR      where the program is built (default: target/ of the project)
  COREFLOW_PIN_RT=1     give the program a real-time priority (chrt --fifo), where that is allowed.
                        It wakes without waiting for the neighbours. Danger: a core that spins
                        (spin_us = "forever") never lets others run; the kernel then stops it for
                        50 ms in each second (kernel.sched_rt_runtime_us), and other programs and
                        kernel threads on that core starve. Use it with tunings that park.
  COREFLOW_PIN_SYSROOT  a folder that stands for / when /proc and /sys are read or written (tests)

Exit codes: 0 well, 1 failed, 2 wrong usage.
HELP
}

say() { printf 'pin: %s\n' "$*" >&2; }
fail() {
    say "$1"
    exit "${2:-1}"
}

# --- reading ---------------------------------------------------------------------------------
# Functions of this part answer in REPLY: a process for each of a few hundred interrupts is slow.

first_line() {
    REPLY=
    [[ -r $sysroot$1 ]] || return 1
    IFS= read -r REPLY 2>/dev/null <"$sysroot$1" || [[ -n $REPLY ]]
}

# The value of a setting; of a choice such as "always [madvise] never" the one in force.
current() {
    first_line "$1" || return 1
    [[ $REPLY =~ \[([^]]+)\] ]] && REPLY=${BASH_REMATCH[1]}
    return 0
}

# "0-2,5" as " 0 1 2 5 ", so that a core is found by its blanks.
expand() {
    local part first last
    REPLY=' '
    for part in ${1//,/ }; do
        first=${part%-*} last=${part#*-}
        [[ $first =~ ^[0-9]+$ && $last =~ ^[0-9]+$ ]] || continue
        for ((; first <= last; first++)); do REPLY+="$first "; done
    done
}

# " 0 1 2 " as "0,1,2".
join() {
    local words
    read -ra words <<<"$1" || true
    local IFS=,
    REPLY="${words[*]}"
}

# The cores of the first list that are not in the second.
without() {
    local core kept=' '
    for core in $1; do [[ $2 == *" $core "* ]] || kept+="$core "; done
    REPLY=$kept
}

is_empty() { [[ -z ${1// /} ]]; }

# A value of [cores] in a tuning file: a list as "0,1", or nothing for "auto".
configured() {
    local key=$1 file=$2
    awk -v key="$key" '
        { sub(/#.*/, "") }
        /^[ \t]*\[/ && !open { inside = ($0 ~ /^[ \t]*\[[ \t]*cores[ \t]*\]/) }
        inside && $0 ~ "^[ \t]*" key "[ \t]*=" { open = 1; sub(/^[^=]*=/, "") }
        open { text = text $0; if (text ~ /\]/ || text ~ /"/) exit }
        END { gsub(/[^0-9,]/, "", text); sub(/,+$/, "", text); print text }
    ' "$file"
}

last_of() {
    local core
    REPLY=
    for core in $1; do REPLY=$core; done
}

# Sets allowed, online, workers, raft, housekeeping (cores without agents) and missing (configured
# cores that this process may not use), all lists with blanks. What the file leaves to "auto", or
# asks for in vain, is chosen the way that the program chooses.
choose_cores() {
    local file=$1 listed isolated
    first_line /sys/devices/system/cpu/online || REPLY=0
    expand "$REPLY" && online=$REPLY
    REPLY=$(awk '/^Cpus_allowed_list:/ { print $2 }' "$sysroot/proc/self/status" 2>/dev/null) || true
    expand "$REPLY" && allowed=$REPLY
    is_empty "$allowed" && allowed=$online
    # Isolated cores are left out of a new process's mask on purpose, and they are the best ones.
    first_line /sys/devices/system/cpu/isolated || REPLY=
    expand "$REPLY" && isolated=$REPLY
    listed=$(configured workers "$file") && expand "$listed" && workers=$REPLY
    listed=$(configured raft "$file") && expand "$listed" && raft=$REPLY
    without "$workers$raft" "$allowed$isolated" && missing=$REPLY
    if ! is_empty "$missing"; then
        workers=' ' raft=' '
    fi
    if is_empty "$workers" && is_empty "$raft"; then
        workers=$allowed
        is_empty "$isolated" || workers=$isolated
        last_of "$workers"
        if (($(wc -w <<<"$workers") >= 3)); then
            raft=" $REPLY "
            without "$workers" "$raft" && workers=$REPLY
        fi
    elif is_empty "$workers"; then
        without "$allowed" "$raft" && workers=$REPLY
        is_empty "$workers" && workers=$allowed
    elif is_empty "$raft"; then
        without "$allowed" "$workers" && last_of "$REPLY"
        [[ -z $REPLY ]] || raft=" $REPLY "
    fi
    without "$online" "$workers" && housekeeping=$REPLY
}

# --- the settings of a host --------------------------------------------------------------------

# Fills the arrays names, paths and wanted: everything that apply may write.
collect_settings() {
    local path irq
    names=() paths=() wanted=()
    add() {
        [[ -e $sysroot$2 ]] || return 0
        names+=("$1") paths+=("$2") wanted+=("$3")
    }
    for path in "$sysroot"/sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor; do
        [[ -e $path ]] && add governor "${path#"$sysroot"}" performance
    done
    add huge_pages /sys/kernel/mm/transparent_hugepage/enabled madvise
    add swappiness /proc/sys/vm/swappiness 1
    is_empty "$housekeeping" && return 0
    join "$housekeeping"
    local cores=$REPLY
    for irq in "$sysroot"/proc/irq/[0-9]*/smp_affinity_list; do
        [[ -e $irq ]] && add interrupts "${irq#"$sysroot"}" "$cores"
    done
    return 0
}

# Whether a value already is what is wanted: interrupts when none of their cores is a worker.
is_met() {
    local name=$1 value=$2 want=$3 REPLY # the caller's REPLY stays
    if [[ $name == interrupts ]]; then
        expand "$value"
        without "$REPLY" "$housekeeping"
        is_empty "$REPLY"
    else
        [[ $value == "$want" ]]
    fi
}

write() { { printf '%s\n' "$2" >"$sysroot$1"; } 2>/dev/null; }

needs_root() {
    [[ -n $sysroot || $EUID -eq 0 ]] || fail "$1 needs root; try: sudo scripts/pin.sh $1"
}

plan() {
    local index unmet=0
    for index in "${!paths[@]}"; do
        current "${paths[index]}" || continue
        is_met "${names[index]}" "$REPLY" "${wanted[index]}" && continue
        printf 'set %s from "%s" to "%s"\n' "${paths[index]}" "$REPLY" "${wanted[index]}"
        unmet=$((unmet + 1))
    done
    ((unmet > 0)) || echo 'set nothing: the host is tuned'
    is_empty "$housekeeping" && echo 'leave the interrupts: every core runs agents'
    join "$workers$raft"
    echo "at each start: taskset to core $REPLY, the hard limits of locked memory and open files"
    boot_lines
}

# Never edited: a wrong boot line can cost the machine.
boot_lines() {
    if is_empty "$housekeeping"; then
        echo 'boot lines: none; a core must stay free for the kernel and other programs'
        return
    fi
    join "$workers"
    echo 'boot lines, for dedicated machines, to be added by hand (see your boot loader):'
    echo "  isolcpus=managed_irq,domain,$REPLY nohz_full=$REPLY rcu_nocbs=$REPLY"
}

apply() {
    local index changed=0 refused=0 path
    needs_root apply
    mkdir -p -- "$(dirname -- "$state")"
    for index in "${!paths[@]}"; do
        path=${paths[index]}
        current "$path" || continue
        is_met "${names[index]}" "$REPLY" "${wanted[index]}" && continue
        # The first value that was found is the one to restore, also after a second apply.
        grep -qsF -- "$path"$'\t' "$state" || printf '%s\t%s\n' "$path" "$REPLY" >>"$state"
        if write "$path" "${wanted[index]}"; then
            changed=$((changed + 1))
        elif [[ ${names[index]} == interrupts ]]; then
            refused=$((refused + 1)) # interrupts of one core cannot be moved
        else
            say "$path cannot be set to ${wanted[index]}"
        fi
    done
    echo "set $changed values; scripts/pin.sh undo puts the old ones back ($state)"
    ((refused == 0)) || say "$refused interrupts belong to their core and stay"
    if pidof irqbalance >/dev/null 2>&1; then
        say 'irqbalance runs and may move interrupts back: stop it, or ban the worker cores in it'
    fi
}

undo() {
    local path value failed=0 restored=0
    needs_root undo
    if [[ ! -e $state ]]; then
        echo 'nothing to undo'
        return
    fi
    while IFS=$'\t' read -r path value; do
        [[ $path == /sys/* || $path == /proc/* ]] || fail "$state is damaged: $path"
        current "$path" || continue # the device is gone
        [[ $REPLY == "$value" ]] && continue
        if write "$path" "$value"; then
            restored=$((restored + 1))
        else
            say "$path cannot be set back to $value"
            failed=1
        fi
    done <"$state"
    ((failed == 0)) || fail "some values could not be put back; $state is kept"
    rm -f -- "$state"
    echo "put $restored values back"
}

# --- checks ------------------------------------------------------------------------------------

# Fills the arrays checks: name, status, found, advice, four of each.
note() { checks+=("$1" "$2" "$3" "${4:-}"); }

collect_checks() {
    checks=()
    check_kernel
    check_cores
    check_settings governor 'frequency governor'
    check_settings interrupts 'interrupts away from worker cores'
    check_settings huge_pages 'transparent huge pages'
    check_settings swappiness 'swappiness'
    check_limits
    if grep -qsw hypervisor "$sysroot/proc/cpuinfo"; then
        note virtual_machine warn 'the host may stop and move the cores' \
            'compare only runs whose probes agree'
    else
        note virtual_machine ok 'no hypervisor is seen'
    fi
    if first_line /sys/devices/system/cpu/isolated && [[ -n $REPLY ]]; then
        note isolation ok "isolated cores: $REPLY"
    else
        note isolation ok 'no core is isolated at boot; scripts/pin.sh plan prints the boot lines'
    fi
}

check_kernel() {
    local release major minor
    first_line /proc/sys/kernel/osrelease || REPLY=0.0
    release=$REPLY
    IFS=.- read -r major minor _ <<<"$release"
    if [[ $major =~ ^[0-9]+$ && $minor =~ ^[0-9]+$ ]] && ((major * 1000 + minor >= 5008)); then
        note kernel ok "$release"
    else
        note kernel fail "$release is older than 5.8" 'boot a newer kernel'
    fi
    first_line /proc/sys/kernel/io_uring_disabled || REPLY=0
    if [[ $REPLY == 2 ]]; then
        note io_uring fail 'switched off by kernel.io_uring_disabled' \
            'run as root: sysctl kernel.io_uring_disabled=0'
    else
        note io_uring ok 'not switched off'
    fi
}

check_cores() {
    join "$workers" && local on=$REPLY
    join "$raft" && local log=$REPLY
    if ! is_empty "$missing"; then
        join "$missing"
        note cores warn "core $REPLY is configured and is not there; agents run on core $on" \
            'change [cores] of the tuning file'
    elif is_empty "$raft"; then
        note cores warn "agents share core $on with the log" 'three or more cores keep them apart'
    else
        note cores ok "agents on core $on, the log on core $log"
    fi
}

# One check for all settings of a name.
check_settings() {
    local name=$1 title=$2 index total=0 unmet=0 example=
    for index in "${!paths[@]}"; do
        [[ ${names[index]} == "$name" ]] && current "${paths[index]}" || continue
        total=$((total + 1))
        is_met "$name" "$REPLY" "${wanted[index]}" && continue
        unmet=$((unmet + 1)) example=$REPLY
    done
    if ((total == 0)); then
        note "$name" ok "$title: nothing to set on this host"
    elif ((unmet == 0)); then
        note "$name" ok "$title: as wanted"
    else
        note "$name" warn "$title: $unmet of $total differ (now $example)" \
            'run as root: scripts/pin.sh apply'
    fi
}

check_limits() {
    local locked
    locked=$(ulimit -H -l)
    # Root of a container may lack the right to raise its limits: only a try tells.
    if [[ $locked == unlimited ]] || (ulimit -l unlimited) 2>/dev/null; then
        note memlock ok 'as much memory as needed may be locked'
    elif ((locked < 512)); then
        note memlock fail "only $locked KiB may be locked, and a core needs 512" \
            'raise memlock in /etc/security/limits.conf, or LimitMEMLOCK= of the service'
    else
        note memlock ok "$locked KiB may be locked"
    fi
}

worst_check() {
    local index
    REPLY=ok
    for ((index = 1; index < ${#checks[@]}; index += 4)); do
        case ${checks[index]} in
        fail) REPLY=fail ;;
        warn) [[ $REPLY == fail ]] || REPLY=warn ;;
        esac
    done
}

json_string() {
    local text=${1//\\/\\\\}
    text=${text//\"/\\\"}
    printf '"%s"' "${text//[[:cntrl:]]/ }"
}

print_json() {
    local index comma=
    worst_check
    printf '{"status":"%s","checks":[' "$REPLY"
    for ((index = 0; index < ${#checks[@]}; index += 4)); do
        printf '%s{"name":"%s","status":"%s","found":' "$comma" "${checks[@]:index:2}"
        json_string "${checks[index + 2]}"
        if [[ -n ${checks[index + 3]} ]]; then
            printf ',"advice":'
            json_string "${checks[index + 3]}"
        fi
        printf '}'
        comma=,
    done
    printf ']}\n'
}

# Prints the checks that are at least this bad: ok, warn or fail.
print_checks() {
    local index least=$1
    for ((index = 0; index < ${#checks[@]}; index += 4)); do
        case $least,${checks[index + 1]} in
        warn,ok) continue ;;
        esac
        printf '%-4s %-15s %s' "${checks[index + 1]}" "${checks[index]}" "${checks[index + 2]}"
        [[ -z ${checks[index + 3]} ]] || printf ' -> %s' "${checks[index + 3]}"
        printf '\n'
    done
}

# --- running -----------------------------------------------------------------------------------

build() {
    local target=${CARGO_TARGET_DIR:-$project/target}
    [[ $target == /* ]] || target=$PWD/$target
    program=$target/release/coreflow
    if [[ -x $program ]]; then
        local newer
        newer=$(find "$project/src" "$project/Cargo.toml" "$project/Cargo.lock" \
            -newer "$program" -print -quit)
        [[ -n $newer ]] || return 0
    fi
    if command -v cargo >/dev/null; then
        say 'building the release program'
        (cd "$project" && CARGO_TARGET_DIR=$target cargo build --release --locked --bin coreflow) >&2
        # Cargo leaves the program alone when a change does not reach it; it is up to date.
        touch -c -- "$program"
    elif [[ -x $program ]]; then
        say 'cargo is not installed; running the program that is there, older than its sources'
    else
        fail 'cargo is not installed and there is no built program'
    fi
}

run() {
    local file=$1 command=$2 launch=() extra=()
    shift 2
    choose_cores "$file"
    collect_settings
    collect_checks
    print_checks warn >&2
    worst_check
    [[ $REPLY != fail ]] || fail 'this host cannot run coreflow; see above'
    build
    # Limits only ever rise here; where the hard limit is lower, the checks have said so.
    if ((EUID == 0)); then ulimit -l unlimited 2>/dev/null || true; fi
    ulimit -S -l "$(ulimit -H -l)" 2>/dev/null || true
    ulimit -S -n "$(ulimit -H -n)" 2>/dev/null || true
    is_empty "$missing" || extra=(--set cores.workers=auto --set cores.raft=auto)
    join "$workers$raft"
    if command -v taskset >/dev/null && taskset -c "$REPLY" true 2>/dev/null; then
        launch=(taskset -c "$REPLY")
    else
        say "cannot pin to core $REPLY; the program pins its threads to the cores it may use"
    fi
    if [[ ${COREFLOW_PIN_RT:-} == 1 ]]; then
        if command -v chrt >/dev/null && chrt --fifo $rt_priority true 2>/dev/null; then
            say 'real-time priority: a core that spins is stopped 50 ms in each second, see --help'
            launch+=(chrt --fifo "$rt_priority")
        else
            say 'a real-time priority is not allowed here; running without'
        fi
    fi
    exec "${launch[@]}" "$program" "$command" --config "$file" "${extra[@]}" "$@"
}

# --- the command line ----------------------------------------------------------------------------

wrong_usage() {
    say "$1"
    usage >&2
    exit 2
}

# The tuning file of check, plan and apply, and whether JSON is asked for.
read_options() {
    local command=$1 word
    shift
    file=$project/tuning/default.toml json=
    for word in "$@"; do
        case $word in
        --json) [[ $command == check ]] && json=1 || wrong_usage "$command has no --json" ;;
        *.toml) file=$word ;;
        *) wrong_usage "$command does not know $word" ;;
        esac
    done
    [[ -r $file ]] || fail "$file cannot be read" 2
    choose_cores "$file"
    collect_settings
}

main() {
    local command=${1:-}
    case $command in
    '') run "$project/tuning/default.toml" serve ;;
    -h | --help | help) usage ;;
    check)
        read_options "$@"
        collect_checks
        if [[ -n $json ]]; then print_json; else print_checks ok; fi
        worst_check
        [[ $REPLY != fail ]]
        ;;
    plan)
        read_options "$@"
        plan
        ;;
    apply)
        read_options "$@"
        apply
        ;;
    undo)
        (($# == 1)) || wrong_usage 'undo takes nothing else'
        undo
        ;;
    *.toml)
        [[ -r $command ]] || fail "$command cannot be read" 2
        run "$command" "${2:-serve}" "${@:3}"
        ;;
    *) wrong_usage "$command is neither a command of this script nor a tuning file" ;;
    esac
}

main "$@"
