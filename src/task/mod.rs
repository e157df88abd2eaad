//! The task room.
