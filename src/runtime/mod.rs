//! The only room that names the engine (glommio, core_affinity, io_uring).
//!
//! It owns what every other room runs on: which cores there are ([`topology`]), an executor on
//! each ([`executor`]), the rings between them ([`ring`], [`mesh`]), how a core sleeps and is woken
//! ([`parking`], [`doorbell`]), sockets, files and child processes as futures ([`net`], [`fs`],
//! [`process`]), the thread and files that may block ([`disk`]), how a core's futures share its time
//! ([`rounds`]), and the thread that does what would hold a core ([`aside`]). Nothing in here knows what a message or a task is: moving to another engine means
//! rewriting this folder and no other.

pub mod aside;
pub mod disk;
pub mod doorbell;
pub mod executor;
pub mod free_memory;
pub mod fs;
pub mod injector;
pub mod mesh;
pub mod net;
pub mod nonblocking;
pub mod parking;
pub mod poll;
pub mod process;
pub mod ring;
pub mod rounds;
mod sync;
mod sys;
pub mod topology;
