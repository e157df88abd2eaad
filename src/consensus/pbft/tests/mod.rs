//! Replicas beside each other under a network that is driven by a seed.

mod life;
mod storm;
mod world;
