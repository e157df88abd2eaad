//! Each check against machines that are well, that are not, and that tell nothing.

use super::super::host::Busy;
use super::*;

/// A machine on which nothing is wrong.
fn good_host() -> Host {
    Host {
        kernel: Some("6.12.1-amd64".to_owned()),
        io_uring_disabled: Some(0),
        io_uring: Some(Ok(())),
        memlock: Some(Limit::At(64 << 20)),
        locks_freely: false,
        open_files: Some(Limit::At(1 << 20)),
        cores: (0..4).collect(),
        governors: BTreeSet::from(["performance".to_owned()]),
        huge_pages: Some("madvise".to_owned()),
        swappiness: Some(1),
        swap_kib: Some(1024),
        hypervisor: false,
        preemption: Some("full".to_owned()),
        tick_hz: Some(1000),
        steal_pct: Some(0.0),
        pressure_pct: Some(0.0),
        busy: Vec::new(),
        unfit_secrets: Vec::new(),
    }
}

/// The check of this name after a change to the good machine.
fn after(name: &str, overrides: &[&str], change: impl FnOnce(&mut Host)) -> Check {
    let mut host = good_host();
    change(&mut host);
    let overrides: Vec<_> = overrides.iter().map(|text| (*text).to_owned()).collect();
    let config = Config::parse("", "test", &overrides).expect("the overrides are valid");
    let checks = all(&host, &config);
    checks.into_iter().find(|check| check.name == name).expect("the check exists")
}

#[test]
fn a_good_machine_passes_every_check() {
    for check in all(&good_host(), &Config::default()) {
        assert_eq!(check.status, Status::Ok, "{check:?}");
        assert_eq!(check.advice, None);
    }
}

#[test]
fn a_machine_that_tells_nothing_fails_no_check() {
    for check in all(&Host::default(), &Config::default()) {
        assert_ne!(check.status, Status::Fail, "{check:?}");
    }
}

#[test]
fn secrets_are_asked_for_or_not_and_must_be_fit() {
    let check = after("secrets", &[], |_| {});
    assert!(check.found.contains("not asked of clients"), "{check:?}");
    let check = after("secrets", &["server.token_file=token"], |_| {});
    assert_eq!(check.found, "a token is asked of clients");
    let check = after("secrets", &[], |host| host.unfit_secrets = vec!["it is short".to_owned()]);
    assert_eq!((check.status, &*check.found), (Status::Fail, "it is short"));
}

#[test]
fn whoever_is_warned_or_failed_is_told_what_to_do() {
    let mut host = good_host();
    host.kernel = Some("4.19.0".to_owned());
    host.io_uring = Some(Err(libc::EPERM));
    host.memlock = Some(Limit::At(65_536));
    host.governors = BTreeSet::from(["powersave".to_owned()]);
    for check in all(&host, &Config::default()) {
        assert_eq!(check.advice.is_some(), check.status != Status::Ok, "{check:?}");
    }
}

#[test]
fn a_kernel_is_judged_by_its_version() {
    let status =
        |release: &str| after("kernel", &[], |host| host.kernel = Some(release.to_owned())).status;
    assert_eq!(status("5.7.19"), Status::Fail);
    assert_eq!(status("5.10.0-28-amd64"), Status::Warn);
    assert_eq!(status("5.12.0"), Status::Ok);
    assert_eq!(status("6.1-rc1"), Status::Ok);
    assert_eq!(status("unknown"), Status::Warn);
}

#[test]
fn a_refused_ring_tells_who_refused_it() {
    let found = |errno: i32, disabled: u32| {
        let check = after("io_uring", &[], |host| {
            host.io_uring = Some(Err(errno));
            host.io_uring_disabled = Some(disabled);
        });
        assert_eq!(check.status, Status::Fail);
        check.found
    };
    assert!(found(libc::ENOSYS, 0).contains("without io_uring"));
    assert!(found(libc::EPERM, 2).contains("kernel.io_uring_disabled"));
    assert!(found(libc::EPERM, 0).contains("forbidden to this process"));
    assert!(found(libc::ENOMEM, 0).contains("lockable memory"));
    assert!(found(libc::EMFILE, 0).contains("Too many open files"));
}

#[test]
fn locked_memory_is_compared_with_what_all_executors_need() {
    let status = |limit: u64, overrides: &[&str]| {
        after("memlock", overrides, |host| host.memlock = Some(Limit::At(limit))).status
    };
    // Four executors register 512 KiB with three rings each: 6 MiB.
    assert_eq!(status(6 << 20, &[]), Status::Ok);
    assert_eq!(status((6 << 20) - 1, &[]), Status::Warn);
    assert_eq!(status(6 << 20, &["runtime.io_memory_kib=1024"]), Status::Warn);
    assert_eq!(status(65_536, &[]), Status::Fail);
    let root = after("memlock", &[], |host| {
        host.memlock = Some(Limit::At(1 << 20));
        host.locks_freely = true;
    });
    assert_eq!(root.status, Status::Ok);
}

#[test]
fn open_files_are_compared_with_the_connections_of_all_cores() {
    let status = |overrides: &[&str]| {
        after("open files", overrides, |host| host.open_files = Some(Limit::At(1024))).status
    };
    assert_eq!(status(&[]), Status::Warn);
    assert_eq!(status(&["server.max_connections=100"]), Status::Ok);
}

#[test]
fn configured_cores_must_be_in_the_affinity_mask() {
    let check = after("cores", &["cores.workers=[0, 7]"], |_| ());
    assert_eq!(check.status, Status::Fail);
    assert!(check.found.starts_with("core 7 is configured"), "{}", check.found);
}

#[test]
fn small_machines_share_their_cores_and_large_ones_do_not() {
    let check = after("cores", &[], |_| ());
    assert_eq!(check.found, "agents run on core 0, 1, 2, the log on core 3");
    let small = after("cores", &[], |host| host.cores = BTreeSet::from([0, 1]));
    assert_eq!(small.status, Status::Warn);
    assert!(small.found.contains("share core 0 with the log"), "{}", small.found);
    let listed = after("cores", &["cores.raft=[0]"], |host| host.cores = BTreeSet::from([0, 1]));
    assert_eq!(listed.found, "agents run on core 1, the log on core 0");
}

#[test]
fn a_taken_port_fails_and_names_its_key() {
    let check = after("ports", &[], |host| {
        host.busy = vec![Busy {
            key: "server.rpc_address".to_owned(),
            address: Config::default().server.rpc_address,
            reason: "Address already in use".to_owned(),
        }];
    });
    assert_eq!(check.status, Status::Fail);
    assert!(check.found.starts_with("127.0.0.1:7450 (server.rpc_address)"), "{}", check.found);
}

#[test]
fn what_costs_latency_is_a_warning() {
    type Change = fn(&mut Host);
    let changes: [(&str, Change); 7] = [
        ("governor", |host| host.governors = BTreeSet::from(["schedutil".to_owned()])),
        ("huge pages", |host| host.huge_pages = Some("always".to_owned())),
        ("swap", |host| host.swappiness = Some(60)),
        ("virtual machine", |host| host.hypervisor = true),
        ("preemption", |host| host.preemption = Some("none".to_owned())),
        ("steal", |host| host.steal_pct = Some(5.0)),
        ("pressure", |host| host.pressure_pct = Some(50.0)),
    ];
    for (name, change) in changes {
        assert_eq!(after(name, &[], change).status, Status::Warn, "{name}");
    }
    let no_swap = after("swap", &[], |host| {
        host.swap_kib = Some(0);
        host.swappiness = Some(60);
    });
    assert_eq!(no_swap.status, Status::Ok);
}
