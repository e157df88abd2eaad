//! What two sides know and nobody else does: a token, or the secret of a cluster.

use sha2::{Digest, Sha256};
use std::{fmt, hint, sync::Arc};

/// Fewest bytes of a secret: with sixteen that are random nobody guesses it.
pub const SECRET_BYTES_MIN: usize = 16;
/// Most bytes of a secret, so that it fits into a header and a first request.
pub const SECRET_BYTES_MAX: usize = 1024;

/// A secret. It does not show itself in messages for people.
#[derive(Clone)]
pub struct Secret {
    text: Arc<str>,
    digest: [u8; 32],
}

/// Why a text is no secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Too few bytes.
    #[error(
        "{0} bytes are too few; allowed: {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX}, such as what `openssl rand -hex 32` prints"
    )]
    Short(usize),
    /// Too many bytes.
    #[error("more than {SECRET_BYTES_MAX} bytes are too many")]
    Long,
    /// A byte that a header cannot carry.
    #[error(
        "only letters, digits and punctuation of ASCII may be part of it, and no space; `openssl rand -hex 32` prints one that fits"
    )]
    Letter,
}

impl Secret {
    /// Takes the text between the blanks at both ends.
    ///
    /// # Errors
    /// It is too short, too long, or has other bytes than visible ASCII.
    pub fn parse(text: &[u8]) -> Result<Self, Unfit> {
        let text = text.trim_ascii();
        match text.len() {
            0..SECRET_BYTES_MIN => return Err(Unfit::Short(text.len())),
            SECRET_BYTES_MIN..=SECRET_BYTES_MAX => {}
            _ => return Err(Unfit::Long),
        }
        match std::str::from_utf8(text) {
            Ok(text) if text.bytes().all(|byte| byte.is_ascii_graphic()) => {
                Ok(Self { text: text.into(), digest: Sha256::digest(text).into() })
            }
            _ => Err(Unfit::Letter),
        }
    }

    /// The secret itself, to be sent or used as a key.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// Whether somebody said the secret; how long the answer takes does not depend on how much of
    /// it was right.
    pub fn is(&self, said: &[u8]) -> bool {
        let said: [u8; 32] = Sha256::digest(said).into();
        let pairs = self.digest.iter().zip(said);
        hint::black_box(pairs.fold(0, |differs, (left, right)| differs | (left ^ right))) == 0
    }
}

/// The bytes that 64 hexadecimal digits are.
pub fn bytes_of_hex(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_what_stands_between_blanks() {
        let secret = Secret::parse(b" \n0123456789abcdef\r\n").expect("sixteen bytes");
        assert_eq!(secret.expose(), "0123456789abcdef");
        assert!(secret.is(b"0123456789abcdef"));
        for other in [&b"0123456789abcdeF"[..], b"0123456789abcde", b"", b"0123456789abcdef\n"] {
            assert!(!secret.is(other));
        }
        assert!(!format!("{secret:?}").contains("0123"));
    }

    #[test]
    fn what_is_guessed_or_cannot_travel_is_refused() {
        assert_eq!(Secret::parse(b"  0123456789abcde ").err(), Some(Unfit::Short(15)));
        assert_eq!(Secret::parse(b"").err(), Some(Unfit::Short(0)));
        assert!(Secret::parse(&[b'a'; SECRET_BYTES_MAX]).is_ok());
        assert_eq!(Secret::parse(&[b'a'; SECRET_BYTES_MAX + 1]).err(), Some(Unfit::Long));
        for text in ["0123456789 abcdef", "0123456789abcdef\0", "0123456789abcdefä"] {
            assert_eq!(Secret::parse(text.as_bytes()).err(), Some(Unfit::Letter), "{text}");
        }
    }
}
