//! The consensus room.
