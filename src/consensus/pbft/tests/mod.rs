//! Replicas beside each other under a network that is driven by a seed.

mod behind;
mod bytes;
mod duty;
mod faults;
mod life;
mod memory;
mod patience;
mod storm;
mod views;
mod world;
