//! Whether a MessagePack-RPC connection has said the token that the node asks for.

use super::params::{Fields, required};
use crate::wire::{api::Error, secret::Secret};

/// The method by which a connection says the token.
pub const METHOD: &str = "auth";

/// Largest request before the token was said, bytes: a stranger fills no more memory than that.
pub const STRANGER_BYTES_MAX: usize = 8 << 10;

/// Wrong tokens that a connection may say; with the last one it ends.
const TRIES: u8 = 5;

/// A connection's way past the token.
#[derive(Debug)]
pub struct Gate {
    token: Option<Secret>,
    is_open: bool,
    /// Wrong tokens that it still hears.
    tries: u8,
}

/// What became of a connection that said a token.
#[derive(Debug, PartialEq, Eq)]
pub enum Said {
    /// The right one, or none is asked for.
    Right,
    /// No token, or a wrong one; it may try again.
    Wrong(Error),
    /// A wrong one too often.
    WrongAtLast(Error),
}

impl Gate {
    /// A gate that opens to the token; open from the start when there is none.
    pub fn new(token: Option<Secret>) -> Self {
        Self { is_open: token.is_none(), token, tries: TRIES }
    }

    /// Whether requests may pass.
    pub const fn is_open(&self) -> bool {
        self.is_open
    }

    /// What is said to a request that does not pass.
    pub fn refusal() -> Error {
        let text = "this node asks for a token: call auth {token} first, with what its \
                    server.token_file holds";
        Error::Unauthorized(text.into())
    }

    /// Hears the parameters of [`METHOD`].
    pub fn hear(&mut self, params: &[u8]) -> Said {
        let said = match token_of(params) {
            Ok(said) => said,
            Err(error) => return Said::Wrong(error),
        };
        if self.token.as_ref().is_none_or(|token| token.is(said.as_bytes())) {
            self.is_open = true;
            return Said::Right;
        }
        self.tries -= 1;
        let error = Error::Unauthorized("that is not the token of this node".into());
        if self.tries == 0 { Said::WrongAtLast(error) } else { Said::Wrong(error) }
    }
}

fn token_of(params: &[u8]) -> Result<&str, Error> {
    let (mut fields, mut token) = (Fields::of(params)?, None);
    while let Some(field) = fields.next()? {
        match field.name {
            "token" => token = field.text()?,
            _ => return Err(field.unknown()),
        }
    }
    required("token", token)
}
