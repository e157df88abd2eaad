//! Joins the cores into one node: start, routes, drain, shutdown.

pub mod gateway;
