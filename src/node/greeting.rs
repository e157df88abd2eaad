//! How a node gets past the token of another one without saying it: by the secret of the cluster.
//!
//! ```text
//! who dials ──auth from, to, challenge──► who listens ──challenge, proof──► who dials
//!           ──auth proof──► who listens ──► who dials
//! ```
//!
//! Who dials knows an address, not who takes requests there; a token that is said to a stranger is the
//! stranger's. So where the cluster has a secret no node says the token to another one: the one who is dialled
//! proves first that it knows the secret, then the one who dials does, and nothing else is said before. Each
//! proof is over both challenges and the numbers of both nodes (`consensus/peers/proof.rs`), so none is of use
//! on another connection, for another node or from the other side. Who passes the bytes of two nodes on to each
//! other is not found out. Without a secret the token is said first, as clients do.
//!
//! Pure: bytes and chance come from outside.

use crate::{
    consensus::peers::proof::{self, Challenge, Proof, Side},
    wire::{api::Error, id::NodeId, secret::Secret},
};

/// What a node says before its requests.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// Nothing: there is neither a token nor a secret.
    Nothing,
    /// The token.
    Token(Secret),
    /// That it knows the secret, once the other side has proven to do.
    Knows(Knowing),
}

impl Credentials {
    /// Those of a node for another one.
    pub fn of(from: NodeId, to: NodeId, token: Option<&Secret>, secret: Option<&Secret>) -> Self {
        match (token, secret) {
            (_, Some(secret)) => Self::Knows(Knowing { from, to, secret: secret.clone() }),
            (Some(token), None) => Self::Token(token.clone()),
            (None, None) => Self::Nothing,
        }
    }
}

/// A node that dials another one, and knows the secret.
#[derive(Clone, Debug)]
pub struct Knowing {
    /// Which dials,
    pub from: NodeId,
    /// and which it means to.
    pub to: NodeId,
    secret: Secret,
}

impl Knowing {
    /// Its proof, over the challenge of a node that has proven itself over that of this one; none for
    /// one that has not.
    pub fn prove(&self, own: &Challenge, given: &Challenge, proof: &Proof) -> Option<Proof> {
        let secret = Some(&self.secret);
        let (from, to) = (self.from, self.to);
        let is_right = proof::is_right(secret, Side::Opens, own, &said(from, to, given), proof);
        is_right.then(|| proof::prove(secret, Side::Knocks, given, &said(from, to, own)))
    }
}

/// A node that is dialled, and knows the secret.
#[derive(Clone, Debug)]
pub struct Known {
    me: NodeId,
    secret: Secret,
}

/// Whom a node waits to be proven over which challenges.
#[derive(Clone, Copy, Debug)]
pub struct Awaited {
    from: NodeId,
    theirs: Challenge,
    own: Challenge,
}

impl Known {
    /// This node.
    pub fn new(me: NodeId, secret: Secret) -> Self {
        Self { me, secret }
    }

    /// Proves this node to one that dials it, and gives what that has to prove itself over.
    ///
    /// # Errors
    /// [`Error::Conflict`] when another node is meant.
    pub fn answer(
        &self,
        (from, to): (NodeId, NodeId),
        theirs: Challenge,
        own: Challenge,
    ) -> Result<(Awaited, Proof), Error> {
        let me = self.me;
        if to != me || from == me || from == 0 {
            let text = format!("this is node {me}, and node {from} means node {to}");
            return Err(Error::Conflict(text));
        }
        let said = said(from, to, &own);
        let proof = proof::prove(Some(&self.secret), Side::Opens, &theirs, &said);
        Ok((Awaited { from, theirs, own }, proof))
    }

    /// Whether the node that dials proves itself.
    pub fn is_proven(&self, awaited: &Awaited, proof: &Proof) -> bool {
        let Awaited { from, theirs, own } = awaited;
        let said = said(*from, self.me, theirs);
        proof::is_right(Some(&self.secret), Side::Knocks, own, &said, proof)
    }
}

/// What a proof is over, beside the challenge of whom it is for: both nodes, and the other challenge.
fn said(from: NodeId, to: NodeId, other: &Challenge) -> Vec<u8> {
    [&from.to_le_bytes()[..], &to.to_le_bytes(), &other.0].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consensus::peers::proof::PROOF_BYTES;

    fn secret(text: &str) -> Secret {
        Secret::parse(text.as_bytes()).expect("sixteen bytes")
    }

    const OWN: Challenge = Challenge([1; PROOF_BYTES]);
    const THEIRS: Challenge = Challenge([2; PROOF_BYTES]);
    const OTHER: Challenge = Challenge([3; PROOF_BYTES]);

    fn knowing(from: NodeId, to: NodeId, text: &str) -> Knowing {
        let secret = secret(text);
        Knowing { from, to, secret }
    }

    #[test]
    fn each_side_is_proven_over_both_challenges_and_the_numbers_of_both() {
        let known = Known::new(2, secret("0123456789abcdef"));
        let dials = knowing(1, 2, "0123456789abcdef");
        let (awaited, proof) = known.answer((1, 2), OWN, THEIRS).expect("it is meant");
        let own = dials.prove(&OWN, &THEIRS, &proof).expect("it is proven");
        assert!(known.is_proven(&awaited, &own));
        for (dials, own, given) in [
            (knowing(1, 2, "0123456789abcdeF"), OWN, THEIRS),
            (knowing(1, 3, "0123456789abcdef"), OWN, THEIRS),
            (knowing(3, 2, "0123456789abcdef"), OWN, THEIRS),
            (dials.clone(), OTHER, THEIRS),
            (dials.clone(), OWN, OTHER),
        ] {
            assert!(dials.prove(&own, &given, &proof).is_none(), "{dials:?} {own:?} {given:?}");
        }
        // What the one said is no proof of the other.
        assert!(!known.is_proven(&awaited, &proof) && dials.prove(&THEIRS, &OWN, &own).is_none());
        let another = Known::new(2, secret("0123456789abcdeF"));
        assert!(!another.is_proven(&awaited, &own), "another secret");
        for (ours, theirs) in [(OWN, OTHER), (OTHER, THEIRS), (THEIRS, OWN)] {
            let (awaited, _) = known.answer((1, 2), ours, theirs).expect("it is meant");
            assert!(!known.is_proven(&awaited, &own), "another connection");
        }
        let (awaited, _) = known.answer((3, 2), OWN, THEIRS).expect("it is meant");
        assert!(!known.is_proven(&awaited, &own), "another node");
    }

    #[test]
    fn nothing_is_proven_to_who_means_another_node_or_speaks_in_the_name_of_this_one() {
        let known = Known::new(2, secret("0123456789abcdef"));
        for meant in [(1, 3), (2, 2), (0, 2)] {
            let refused = known.answer(meant, OWN, THEIRS).expect_err("not this node");
            assert!(refused.to_string().contains("this is node 2"), "{refused}");
        }
    }

    #[test]
    fn the_token_is_said_where_there_is_no_secret_and_nowhere_else() {
        let (token, secret) = (secret("a-token-of-nodes"), secret("0123456789abcdef"));
        let of = |token, secret| Credentials::of(1, 2, token, secret);
        assert!(matches!(of(None, None), Credentials::Nothing));
        assert!(matches!(of(None, Some(&secret)), Credentials::Knows(_)));
        assert!(matches!(of(Some(&token), None), Credentials::Token(_)));
        assert!(matches!(of(Some(&token), Some(&secret)), Credentials::Knows(_)));
    }
}
