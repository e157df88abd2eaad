//! What two nodes say before a connection between them is a trunk.
//!
//! ```text
//! who dials ──offer──► who listens ──challenge──► who dials ──offer and proof──► who listens ──answer──► who dials
//! ```
//!
//! An offer ends what its node had with this one before, so where the cluster has a secret it is believed only
//! with a proof (`consensus/peers/proof.rs`) over all that it says and over a challenge of this connection.
//! Whoever may use the port for requests, and does not know the secret, speaks in no node's name. A cluster
//! without a secret asks for no proof.

use super::{DIAL_LIMIT, HANDSHAKE_BYTES};
use crate::{
    client::{Params, View},
    consensus::peers::proof::{self, Challenge, Proof, Side},
    node::{
        forward::{
            Settings,
            channel::{Answered, Channel, Request},
            link::pump,
        },
        gateway::TrunkOffer,
    },
    shard::trunks::Offer,
    wire::{
        api::Error,
        id::{CoreIndex, NodeId},
        secret::Secret,
        trunk::VERSIONS,
    },
};
use futures_lite::{AsyncRead, AsyncWrite};
use std::{future::poll_fn, io, ops::RangeInclusive, pin::Pin, task::Poll, time::Instant};

/// Most cores of a node whose sessions are kept.
const CORES_MAX: CoreIndex = 1024;

/// What the other node answers to an offer that it believes.
pub struct Answer {
    /// The longest record that it takes.
    pub record_bytes: usize,
    /// The last frame that it took, if it knows the session.
    pub taken: Option<u64>,
}

/// Says what the connection is for, and proves it when that is asked.
pub async fn shake_hands<S>(
    stream: &mut S,
    settings: &Settings,
    offer: &Offer,
) -> io::Result<Result<Answer, Error>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut channel = Channel::new(settings.bounds, settings.token.clone());
    let mut said = TrunkOffer { offer: *offer, versions: VERSIONS, proof: None };
    let mut answer = match ask(&mut channel, stream, &said).await? {
        Ok(answer) => answer,
        Err(refused) => return Ok(Err(refused)),
    };
    if let Some(challenge) = View::new(&answer).get("challenge") {
        let bytes = challenge.bin().and_then(|bytes| bytes.try_into().ok());
        let challenge = bytes.ok_or_else(|| io::Error::other("its challenge is none"))?;
        let Some(secret) = &settings.secret else {
            let text =
                "it asks for the cluster's secret, and this node has none (cluster.secret_file)";
            return Ok(Err(Error::Conflict(text.into())));
        };
        said.proof = Some(prove(secret, &Challenge(challenge), &said));
        answer = match ask(&mut channel, stream, &said).await? {
            Ok(answer) => answer,
            Err(refused) => return Ok(Err(refused)),
        };
    }
    let limit = View::new(&answer).get("record_bytes").and_then(View::uint);
    let limit = limit.and_then(|limit| usize::try_from(limit).ok());
    let record_bytes = limit.ok_or_else(|| io::Error::other("its answer names no record_bytes"))?;
    let taken = View::new(&answer).get("taken").and_then(View::uint);
    Ok(Ok(Answer { record_bytes, taken }))
}

/// Asks once and waits for the answer.
async fn ask<S>(channel: &mut Channel, stream: &mut S, said: &TrunkOffer) -> io::Result<Answered>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let TrunkOffer { offer, versions, proof } = said;
    let mut params = Params::new()
        .uint_if("from", Some(offer.from.node))
        .uint_if("core", Some(offer.from.core.into()))
        .uint_if("life", Some(offer.from.life))
        .uint_if("to", Some(offer.to))
        .uint_if("session", Some(offer.session))
        .uint_if("resumes", Some(offer.resumes.into()))
        .uint_if("taken", Some(offer.taken))
        .uint_if("record_bytes", Some(offer.record_bytes as u64))
        .uint_if("version_min", Some(*versions.start()))
        .uint_if("version_max", Some(*versions.end()));
    if let Some(proof) = proof {
        params = params.bin("proof", proof);
    }
    let now = Instant::now();
    let request = Request {
        method: "here.trunk",
        params: &params,
        deadline: now + DIAL_LIMIT,
        as_long_as_led: None,
    };
    let mut answered = channel.push(now, &request).map_err(io::Error::other)?;
    let mut buffer = vec![0; HANDSHAKE_BYTES];
    let answer = poll_fn(|cx| {
        loop {
            if let Poll::Ready(answer) = Pin::new(&mut answered).poll(cx) {
                return Poll::Ready(Ok(answer));
            }
            match pump(channel, stream, &mut buffer, cx) {
                Ok(true) => {}
                Ok(false) => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    });
    answer.await?.map_err(io::Error::other)
}

/// Whether an offer is believed by this node, whose connection it came over was given that challenge; tells
/// the version that both speak, or the challenge that it is to be proven over.
///
/// # Errors
/// [`Error::Conflict`] and [`Error::Invalid`]; it is not taken.
pub fn judge(
    me: Option<NodeId>,
    secret: Option<&Secret>,
    said: &TrunkOffer,
    given: Option<Challenge>,
) -> Result<Result<u64, Challenge>, Error> {
    let Some(me) = me else {
        return Err(Error::Conflict("the node belongs to no cluster".into()));
    };
    let offer = &said.offer;
    if offer.to != me {
        let text = format!("this is node {me}, not node {}", offer.to);
        return Err(Error::Conflict(text));
    }
    let from = offer.from.node;
    if from == me || from == 0 {
        let text = format!("from: node {from} cannot dial node {me}");
        return Err(Error::Invalid(text));
    }
    if offer.from.core >= CORES_MAX {
        return Err(Error::Invalid(format!("core: a node has at most {CORES_MAX}")));
    }
    let version = version_of_both(&VERSIONS, &said.versions).ok_or_else(|| {
        let [here, there] = [&VERSIONS, &said.versions].map(|of| match (of.start(), of.end()) {
            (only, last) if only == last => format!("version {only}"),
            (first, last) => format!("versions {first} to {last}"),
        });
        Error::Conflict(format!(
            "node {me} speaks {here} of messages between nodes, node {from} speaks {there}: run releases \
             that have one in common, and go through the releases in between one after the other"
        ))
    })?;
    let Some(secret) = secret else { return Ok(Ok(version)) };
    match (&said.proof, given) {
        (Some(proof), Some(given)) if is_proven(secret, &given, said, proof) => Ok(Ok(version)),
        (Some(_), Some(_)) => Err(Error::Conflict(format!(
            "from: it is not proven that this is node {from}: the two nodes do not have the same \
             cluster.secret_file"
        ))),
        _ => match Challenge::random() {
            Ok(challenge) => Ok(Err(challenge)),
            Err(error) => Err(Error::Unavailable(format!("no random bytes: {error}"))),
        },
    }
}

/// The highest version that both sides speak.
fn version_of_both(here: &RangeInclusive<u64>, there: &RangeInclusive<u64>) -> Option<u64> {
    let highest = *here.end().min(there.end());
    (highest >= *here.start().max(there.start())).then_some(highest)
}

fn prove(secret: &Secret, challenge: &Challenge, said: &TrunkOffer) -> Proof {
    proof::prove(Some(secret), Side::Offers, challenge, &bytes_of(said))
}

fn is_proven(secret: &Secret, challenge: &Challenge, said: &TrunkOffer, proof: &Proof) -> bool {
    proof::is_right(Some(secret), Side::Offers, challenge, &bytes_of(said), proof)
}

/// All that an offer says.
fn bytes_of(said: &TrunkOffer) -> Vec<u8> {
    let Offer { from, to, session, resumes, taken, record_bytes } = said.offer;
    let numbers = [
        from.node,
        from.core.into(),
        from.life,
        to,
        session,
        resumes.into(),
        taken,
        record_bytes as u64,
        *said.versions.start(),
        *said.versions.end(),
    ];
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::trunks::Origin;

    fn secret(text: &str) -> Secret {
        Secret::parse(text.as_bytes()).expect("sixteen bytes")
    }

    fn said() -> TrunkOffer {
        let from = Origin { node: 1, core: 3, life: 77 };
        let offer = Offer { from, to: 2, session: 4, resumes: true, taken: 9, record_bytes: 1000 };
        TrunkOffer { offer, versions: VERSIONS, proof: None }
    }

    #[test]
    fn an_offer_is_believed_with_a_proof_over_its_own_challenge_and_every_word() {
        let (ours, theirs) = (secret("0123456789abcdef"), secret("0123456789abcdeF"));
        let judge = |said: &TrunkOffer, given| judge(Some(2), Some(&ours), said, given);
        let Ok(Err(challenge)) = judge(&said(), None) else { panic!("it asks for a proof") };
        let proven = |secret: &Secret, challenge| {
            let proof = Some(prove(secret, challenge, &said()));
            TrunkOffer { proof, ..said() }
        };
        let right = proven(&ours, &challenge);
        assert_eq!(judge(&right, Some(challenge)), Ok(Ok(*VERSIONS.end())));
        let Ok(Err(other)) = judge(&right, None) else { panic!("of this connection") };
        assert_ne!(other, challenge);
        let refused = [(&right, other), (&proven(&theirs, &challenge), challenge)];
        for (said, given) in refused {
            let error = judge(said, Some(given)).expect_err("it is not proven");
            assert!(error.to_string().contains("cluster.secret_file"), "{error}");
        }
        let changes: [fn(&mut Offer); 8] = [
            |of| of.from.node += 4,
            |of| of.from.core += 1,
            |of| of.from.life += 1,
            |of| of.session += 1,
            |of| of.resumes = false,
            |of| of.taken += 1,
            |of| of.record_bytes += 1,
            |of| of.to = 3,
        ];
        for change in changes {
            let mut forged = right.clone();
            change(&mut forged.offer);
            assert!(judge(&forged, Some(challenge)).is_err(), "{forged:?}");
        }
        assert_eq!(
            super::judge(Some(2), None, &said(), None),
            Ok(Ok(*VERSIONS.end())),
            "no secret"
        );
    }

    #[test]
    fn nodes_speak_the_highest_version_that_both_do_and_a_refusal_names_those_of_both() {
        for (here, there, both) in [
            (2..=2, 2..=2, Some(2)),
            (2..=4, 3..=7, Some(4)),
            (3..=7, 2..=4, Some(4)),
            (2..=3, 4..=5, None),
            (4..=5, 2..=3, None),
        ] {
            assert_eq!(version_of_both(&here, &there), both, "{here:?} and {there:?}");
        }
        let next = VERSIONS.end() + 1;
        let said = TrunkOffer { versions: next..=next + 1, ..said() };
        let error =
            judge(Some(2), None, &said, None).expect_err("no version in common").to_string();
        let named =
            [format!("version {}", VERSIONS.end()), format!("versions {next} to {}", next + 1)];
        assert!(named.iter().all(|words| error.contains(words)), "{error}");
        let said = TrunkOffer { versions: VERSIONS.start() - 1..=next, ..said };
        assert_eq!(judge(Some(2), None, &said, None), Ok(Ok(*VERSIONS.end())));
    }
}
