//! Refuses requests without the node's token, and those that a web page made through a name of its
//! own (DNS rebinding).
//!
//! A browser that was tricked into resolving `evil.example` to 127.0.0.1 still says
//! `Host: evil.example` and `Origin: http://evil.example`: those two tell. A node that listens beyond
//! the loopback has names that it does not know; there the token protects it, which no page has.

use crate::wire::secret::Secret;
use hyper::{
    HeaderMap,
    header::{AUTHORIZATION, HOST, HeaderName, ORIGIN},
};
use std::net::IpAddr;

/// Why the request is refused; none when it may pass.
pub fn refusal(headers: &HeaderMap, loopback: bool) -> Option<&'static str> {
    let hosts: Vec<&str> = texts(headers, HOST);
    if loopback && !hosts.iter().all(|host| is_loopback(host)) {
        return Some("this node serves its own machine only: Host must be localhost");
    }
    let own = |authority: &str| {
        if loopback { is_loopback(authority) } else { hosts.contains(&authority) }
    };
    let is_own = |origin: &&str| {
        let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        authority.is_some_and(own)
    };
    if !texts(headers, ORIGIN).iter().all(is_own) {
        return Some("a web page of another site must not talk to this node: Origin is refused");
    }
    None
}

/// Whether the request carries the token, once.
pub fn says(headers: &HeaderMap, token: &Secret) -> bool {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return false };
    let Some((scheme, said)) = value.to_str().ok().and_then(|value| value.split_once(' ')) else {
        return false;
    };
    scheme.eq_ignore_ascii_case("Bearer") && token.is(said.trim_ascii().as_bytes())
}

/// Every value of a header; one that is no text becomes an empty one, which passes for nothing.
fn texts(headers: &HeaderMap, name: HeaderName) -> Vec<&str> {
    headers.get_all(name).iter().map(|value| value.to_str().unwrap_or("")).collect()
}

/// Whether `host` or `host:port` names this machine to itself.
fn is_loopback(authority: &str) -> bool {
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or("", |(host, _)| host),
        None => authority.split_once(':').map_or(authority, |(host, _)| host),
    };
    host.eq_ignore_ascii_case("localhost")
        || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(host: &str, origin: Option<&str>, loopback: bool) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(ORIGIN, origin.parse().unwrap());
        }
        refusal(&headers, loopback).is_some()
    }

    #[test]
    fn only_loopback_names_reach_a_loopback_node() {
        for host in ["localhost", "LOCALHOST:7451", "127.0.0.1:7451", "[::1]:7451", "127.9.9.9"] {
            assert!(!refused(host, None, true), "{host}");
        }
        for host in ["evil.example", "127.0.0.1.evil.example", "10.0.0.1", "[::2]", "", "local"] {
            assert!(refused(host, None, true), "{host}");
        }
        assert!(!refused("node.example:7451", None, false));
    }

    #[test]
    fn only_own_pages_may_ask() {
        assert!(!refused("localhost", Some("http://localhost:3000"), true));
        assert!(!refused("localhost", Some("https://[::1]"), true));
        for origin in ["null", "http://evil.example", "http://localhost.evil.example", "file://"] {
            assert!(refused("localhost", Some(origin), true), "{origin}");
        }
        assert!(!refused("node.example:1", Some("https://node.example:1"), false));
        assert!(refused("node.example:1", Some("https://evil.example"), false));
    }
}
