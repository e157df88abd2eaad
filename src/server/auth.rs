//! Whether a MessagePack-RPC connection has said the token that the node asks for, or is that of a node of the
//! same cluster (`node/greeting.rs`).

use super::params::{Fields, required};
use crate::{
    node::gateway::{Awaited, Challenge, Known, Proof},
    wire::{api::Error, id::NodeId, secret::Secret},
};

/// The method by which a connection says the token, or proves that it is a node's.
pub const METHOD: &str = "auth";

/// Largest request before the token was said, bytes: a stranger fills no more memory than that.
pub const STRANGER_BYTES_MAX: usize = 8 << 10;

/// Wrong tokens and proofs that a connection may say; with the last one it ends.
const TRIES: u8 = 5;

/// A connection's way past the token.
#[derive(Debug)]
pub struct Gate {
    token: Option<Secret>,
    /// What a node of the cluster can prove instead.
    known: Option<Known>,
    awaited: Option<Awaited>,
    /// Challenges that it still gives: each costs some microseconds.
    challenges: u8,
    is_open: bool,
    /// Wrong tokens and proofs that it still hears.
    tries: u8,
}

/// What became of a connection that said a token.
#[derive(Debug, PartialEq, Eq)]
pub enum Said {
    /// The right one, or none is asked for; or it is proven to be a node's.
    Right,
    /// It says that it is a node's: that is to be proven over this, and this node's proof goes with it.
    Challenged(Challenge, Proof),
    /// No token, or a wrong one; it may try again.
    Wrong(Error),
    /// A wrong one too often.
    WrongAtLast(Error),
}

impl Gate {
    /// A gate that opens to the token, and to nodes of the same cluster where that has a secret; open from
    /// the start when there is no token.
    pub fn new(token: Option<Secret>, known: Option<Known>) -> Self {
        Self {
            is_open: token.is_none(),
            token,
            known,
            awaited: None,
            challenges: TRIES,
            tries: TRIES,
        }
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
        let words = match words_of(params) {
            Ok(words) => words,
            Err(error) => return Said::Wrong(error),
        };
        match words {
            Words::Token(said) => {
                let is_right = self.token.as_ref().is_none_or(|token| token.is(said.as_bytes()));
                self.judge(is_right, "that is not the token of this node")
            }
            Words::Node(meant, challenge) => self.challenge(meant, challenge),
            Words::Proof(proof) => {
                // A challenge is good for one proof.
                let awaited = self.known.as_ref().zip(self.awaited.take());
                let is_right = awaited.is_some_and(|(known, of)| known.is_proven(&of, &proof));
                self.judge(
                    is_right,
                    "it is not proven that this is a node of the cluster: all nodes have the same \
                     cluster.secret_file",
                )
            }
        }
    }

    fn judge(&mut self, is_right: bool, wrong: &str) -> Said {
        if is_right {
            self.is_open = true;
            return Said::Right;
        }
        let error = Error::Unauthorized(wrong.into());
        self.tries = self.tries.saturating_sub(1);
        if self.tries == 0 { Said::WrongAtLast(error) } else { Said::Wrong(error) }
    }

    fn challenge(&mut self, meant: (NodeId, NodeId), theirs: Challenge) -> Said {
        let Some(known) = &self.known else {
            let text = "this node belongs to no cluster that has a secret (cluster.secret_file)";
            return Said::Wrong(Error::Conflict(text.into()));
        };
        let Some(left) = self.challenges.checked_sub(1) else {
            let text = "that was asked too often over one connection";
            return Said::WrongAtLast(Error::Unauthorized(text.into()));
        };
        self.challenges = left;
        let answered = match Challenge::random() {
            Ok(own) => known.answer(meant, theirs, own).map(|answer| (own, answer)),
            Err(error) => Err(Error::Unavailable(format!("no random bytes: {error}"))),
        };
        match answered {
            Ok((own, (awaited, proof))) => {
                self.awaited = Some(awaited);
                Said::Challenged(own, proof)
            }
            Err(error) => Said::Wrong(error),
        }
    }
}

/// What is said about who is at the other end.
enum Words<'a> {
    /// The token.
    Token(&'a str),
    /// It is a node, and means one; and what this one is to be proven over.
    Node((NodeId, NodeId), Challenge),
    /// What was asked for then.
    Proof(Proof),
}

fn words_of(params: &[u8]) -> Result<Words<'_>, Error> {
    let (mut fields, mut token) = (Fields::of(params)?, None);
    let (mut from, mut to, mut challenge, mut proof) = (None, None, None, None);
    let mut unknown = None;
    while let Some(field) = fields.next()? {
        match field.name {
            "token" => token = field.text()?,
            "from" => from = field.uint()?,
            "to" => to = field.uint()?,
            "challenge" => challenge = field.bytes()?.map(Challenge),
            "proof" => proof = field.bytes()?,
            // A later release may say more to another node.
            _ => unknown = Some(field.unknown()),
        }
    }
    let is_client = challenge.is_none() && proof.is_none();
    if let Some(error) = unknown.filter(|_| is_client) {
        return Err(error);
    }
    Ok(match (token, challenge, proof) {
        (None, Some(challenge), None) => {
            Words::Node((required("from", from)?, required("to", to)?), challenge)
        }
        (None, None, Some(proof)) => Words::Proof(proof),
        (token, ..) => Words::Token(required("token", token)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{client::Params, node::gateway::Credentials};

    fn secret(text: &str) -> Secret {
        Secret::parse(text.as_bytes()).expect("sixteen bytes")
    }

    fn gate() -> Gate {
        let known = Known::new(2, secret("0123456789abcdef"));
        Gate::new(Some(secret("a-token-of-nodes")), Some(known))
    }

    fn hear(gate: &mut Gate, params: Params) -> Said {
        let mut bytes = Vec::new();
        params.write(&mut bytes);
        gate.hear(&bytes)
    }

    fn meant(from: u64, to: u64) -> Params {
        Params::new().uint_if("from", Some(from)).uint_if("to", Some(to))
    }

    /// Asks to be believed as node 1, and proves it with a secret.
    fn prove(gate: &mut Gate, text: &str) -> Said {
        let own = Challenge([7; 32]);
        let said = hear(gate, meant(1, 2).bin("challenge", &own.0));
        let Said::Challenged(given, proof) = said else { panic!("{said:?}") };
        let ours = secret("0123456789abcdef");
        let dials = Credentials::of(1, 2, Some(&ours), Some(&secret(text)));
        let Credentials::Knows(knowing) = dials else { panic!("it has a secret") };
        let proof = knowing.prove(&own, &given, &proof).unwrap_or([9; 32]);
        hear(gate, Params::new().bin("proof", &proof))
    }

    #[test]
    fn a_node_proves_the_secret_instead_of_saying_the_token() {
        let mut gate = gate();
        assert!(matches!(prove(&mut gate, "0123456789abcdeF"), Said::Wrong(_)));
        assert!(!gate.is_open());
        assert_eq!(prove(&mut gate, "0123456789abcdef"), Said::Right);
        assert!(gate.is_open());
    }

    #[test]
    fn a_challenge_is_good_for_one_proof_and_wrong_ones_end_the_connection() {
        let mut gate = gate();
        let own = Challenge([7; 32]);
        let said = hear(&mut gate, meant(1, 2).bin("challenge", &own.0));
        assert!(matches!(said, Said::Challenged(..)));
        for tries in 1..=TRIES {
            let said = hear(&mut gate, Params::new().bin("proof", &[9; 32]));
            assert_eq!(matches!(said, Said::WrongAtLast(_)), tries == TRIES, "{said:?}");
            assert!(gate.awaited.is_none() && !gate.is_open());
        }
    }

    #[test]
    fn a_connection_is_given_few_challenges() {
        let mut gate = gate();
        for asked in 1..=TRIES + 1 {
            let said = hear(&mut gate, meant(1, 2).bin("challenge", &[7; 32]));
            assert_eq!(matches!(said, Said::Challenged(..)), asked <= TRIES, "{said:?}");
            assert_eq!(matches!(said, Said::WrongAtLast(_)), asked > TRIES, "{said:?}");
        }
    }

    #[test]
    fn words_of_later_releases_are_passed_over_beside_those_of_nodes_alone() {
        let said = hear(&mut gate(), meant(1, 2).bin("challenge", &[7; 32]).str("later", "word"));
        assert!(matches!(said, Said::Challenged(..)), "{said:?}");
        let said = hear(&mut gate(), Params::new().str("token", "guess").str("later", "word"));
        assert!(matches!(said, Said::Wrong(Error::Invalid(_))), "{said:?}");
    }

    #[test]
    fn a_greeting_says_all_words_and_means_this_node_of_a_cluster_that_has_a_secret() {
        let challenge = || Params::new().bin("challenge", &[7; 32]);
        let odd = [
            (challenge(), "from is missing"),
            (challenge().uint_if("from", Some(1)), "to is missing"),
            (meant(1, 2).bin("challenge", &[7; 31]), "must be 32 bytes"),
            (meant(1, 3).bin("challenge", &[7; 32]), "this is node 2"),
            (meant(1, 2), "token is missing"),
            (challenge().bin("proof", &[9; 32]), "token is missing"),
        ];
        for (params, why) in odd {
            let Said::Wrong(error) = hear(&mut gate(), params) else { panic!("{why}") };
            assert!(error.to_string().contains(why), "{error}");
        }
        let mut alone = Gate::new(Some(secret("a-token-of-nodes")), None);
        let said = hear(&mut alone, meant(1, 2).bin("challenge", &[7; 32]));
        assert!(matches!(said, Said::Wrong(Error::Conflict(_))), "{said:?}");
        let said = hear(&mut alone, Params::new().bin("proof", &[9; 32]));
        assert!(matches!(said, Said::Wrong(Error::Unauthorized(_))), "{said:?}");
    }
}
