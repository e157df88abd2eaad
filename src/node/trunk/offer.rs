//! What two nodes say before a connection between them is a trunk.
//!
//! ```text
//! who dials ──offer, challenge──► who listens ──challenge──► who dials
//!           ──offer, challenge, proof──► who listens ──answer, proof──► who dials
//! ```
//!
//! An offer ends what its node had with this one before, so where the cluster has a secret it is believed only
//! with a proof (`consensus/peers/proof.rs`) over all that it says and over a challenge of this connection.
//! What is said before it (`node/greeting.rs`) lets a node use the port for requests, and a client as well; here
//! it is found out which node it is. Whoever may use the port for requests, and does not know the secret, speaks
//! in no node's name. Nor is
//! anything said to whoever stands at a node's address and does not know it: the answer is proven as well, over
//! the challenge of the one who dials. Each proof is over both challenges and the whole offer, with the numbers of
//! both nodes, so that none is of use on another connection, for another node or from the other side. Who passes
//! the bytes of two nodes on to each other unchanged is not found out, nor who changes what travels behind the
//! answer, nor is a refusal proven. A cluster without a secret asks for no proof.

use super::{DIAL_LIMIT, HANDSHAKE_BYTES};
use crate::{
    client::{Params, View},
    consensus::peers::proof::{self, Challenge, PROOF_BYTES, Proof, Side},
    node::{
        forward::{
            Settings,
            channel::{Answered, Channel, Request},
            link::pump,
        },
        gateway::{TrunkOffer, TrunkWords},
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

/// Why an offer comes to nothing.
#[derive(Debug)]
pub enum Refusal {
    /// It is refused, which anybody at the node's address can do.
    There(Error),
    /// Who answers is not believed, or says what no node would.
    Here(String),
}

impl Refusal {
    fn here(why: impl Into<String>) -> Self {
        Self::Here(why.into())
    }
}

const NOT_PROVEN: &str = "it does not prove that it knows the cluster's secret: give all nodes the same \
     cluster.secret_file, and see who takes requests at that address";

/// Says what the connection is for, proves it when that is asked, and lets the other side prove itself.
pub async fn shake_hands<S>(
    stream: &mut S,
    settings: &Settings,
    offer: &Offer,
) -> io::Result<Result<TrunkWords, Refusal>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let random = || Challenge::random().map_err(io::Error::other);
    let credentials = settings.credentials(offer.from.node, offer.to);
    let mut channel = Channel::new(settings.bounds, credentials);
    channel.greet(random()?);
    let own = settings.secret.as_ref().map(|_| random()).transpose()?;
    let mut said = TrunkOffer { offer: *offer, versions: VERSIONS, challenge: own, proof: None };
    let mut answer = match ask(&mut channel, stream, &said).await? {
        Ok(answer) => answer,
        Err(refused) => return Ok(Err(Refusal::There(refused))),
    };
    let Ok(given) = bytes_in(&answer, "challenge") else {
        return Ok(Err(Refusal::here("its challenge is none")));
    };
    let given = given.map(Challenge);
    match (&settings.secret, &given) {
        (Some(secret), Some(given)) => {
            said.proof = prove(secret, &said, given);
            answer = match ask(&mut channel, stream, &said).await? {
                Ok(answer) => answer,
                Err(refused) => return Ok(Err(Refusal::There(refused))),
            };
        }
        (Some(_), None) => return Ok(Err(Refusal::here(NOT_PROVEN))),
        (None, Some(_)) => {
            let text =
                "it asks for the cluster's secret, and this node has none (cluster.secret_file)";
            return Ok(Err(Refusal::There(Error::Conflict(text.into()))));
        }
        (None, None) => {}
    }
    Ok(believed(&said, settings.secret.as_ref(), given, &answer).map_err(Refusal::Here))
}

/// What an answer says, when it is to be believed; else why it is not.
fn believed(
    said: &TrunkOffer,
    secret: Option<&Secret>,
    given: Option<Challenge>,
    answer: &[u8],
) -> Result<TrunkWords, String> {
    let number = |name| View::new(answer).get(name).and_then(View::uint);
    let limit = number("record_bytes").and_then(|limit| usize::try_from(limit).ok());
    let record_bytes = limit.ok_or("its answer names no record_bytes")?;
    let version = number("version").ok_or("its answer names no version")?;
    let words = TrunkWords { record_bytes, version, taken: number("taken") };
    let proof = bytes_in(answer, "proof").map_err(|()| "its proof is none")?;
    if secret.is_some_and(|secret| !is_answer_proven(secret, said, given, &words, proof)) {
        return Err(NOT_PROVEN.into());
    }
    if !said.versions.contains(&version) {
        return Err(format!(
            "it chose version {version} of messages between nodes, which was not offered: versions {} to {} \
             were",
            said.versions.start(),
            said.versions.end()
        ));
    }
    Ok(words)
}

/// A challenge or a proof in an answer; an error when it is neither.
fn bytes_in(answer: &[u8], name: &str) -> Result<Option<[u8; PROOF_BYTES]>, ()> {
    let Some(value) = View::new(answer).get(name) else { return Ok(None) };
    let bytes = value.bin().and_then(|bytes| bytes.try_into().ok());
    bytes.map(Some).ok_or(())
}

/// Asks once and waits for the answer.
async fn ask<S>(channel: &mut Channel, stream: &mut S, said: &TrunkOffer) -> io::Result<Answered>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let TrunkOffer { offer, versions, challenge, proof } = said;
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
    if let Some(challenge) = challenge {
        params = params.bin("challenge", &challenge.0);
    }
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
        (Some(proof), Some(given)) if is_proven(secret, said, &given, proof) => Ok(Ok(version)),
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

/// The proof of an offer over the challenge that was given for it.
fn prove(secret: &Secret, said: &TrunkOffer, given: &Challenge) -> Option<Proof> {
    let bytes = bytes_of(said, said.challenge.as_ref()?);
    Some(proof::prove(Some(secret), Side::Offers, given, &bytes))
}

fn is_proven(secret: &Secret, said: &TrunkOffer, given: &Challenge, proof: &Proof) -> bool {
    said.challenge.is_some_and(|own| {
        let bytes = bytes_of(said, &own);
        proof::is_right(Some(secret), Side::Offers, given, &bytes, proof)
    })
}

/// The proof of what is answered to an offer that was proven over the challenge that was given for it.
pub fn prove_answer(
    secret: Option<&Secret>,
    said: &TrunkOffer,
    given: Option<Challenge>,
    words: &TrunkWords,
) -> Option<Proof> {
    let own = said.challenge?;
    let bytes = bytes_of_answer(said, &given?, words);
    Some(proof::prove(Some(secret?), Side::Answers, &own, &bytes))
}

fn is_answer_proven(
    secret: &Secret,
    said: &TrunkOffer,
    given: Option<Challenge>,
    words: &TrunkWords,
    proof: Option<Proof>,
) -> bool {
    let (Some(own), Some(given), Some(proof)) = (said.challenge, given, proof) else {
        return false;
    };
    let bytes = bytes_of_answer(said, &given, words);
    proof::is_right(Some(secret), Side::Answers, &own, &bytes, &proof)
}

/// All that an answer says, and what it answers.
fn bytes_of_answer(said: &TrunkOffer, given: &Challenge, words: &TrunkWords) -> Vec<u8> {
    let TrunkWords { record_bytes, version, taken } = *words;
    let numbers = [record_bytes as u64, version, taken.is_some().into(), taken.unwrap_or(0)];
    let mut bytes = bytes_of(said, given);
    bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
    bytes
}

/// All that an offer says, beside a challenge.
fn bytes_of(said: &TrunkOffer, challenge: &Challenge) -> Vec<u8> {
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
    let numbers = numbers.iter().flat_map(|number| number.to_le_bytes());
    challenge.0.into_iter().chain(numbers).collect()
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
        let challenge = Some(Challenge([5; PROOF_BYTES]));
        TrunkOffer { offer, versions: VERSIONS, challenge, proof: None }
    }

    #[test]
    fn an_answer_is_believed_with_a_proof_over_both_challenges_the_offer_and_every_word() {
        let (ours, theirs) = (secret("0123456789abcdef"), secret("0123456789abcdeF"));
        let (said, given) = (said(), Some(Challenge([6; PROOF_BYTES])));
        let words = TrunkWords { record_bytes: 1000, version: 2, taken: Some(0) };
        let proof = prove_answer(Some(&ours), &said, given, &words);
        assert!(is_answer_proven(&ours, &said, given, &words, proof));
        assert!(!is_answer_proven(&ours, &said, given, &words, None), "no proof");
        assert!(!is_answer_proven(&theirs, &said, given, &words, proof), "another secret");
        assert!(!is_answer_proven(&ours, &said, None, &words, proof), "nothing was asked");
        let other = Some(Challenge([7; PROOF_BYTES]));
        assert!(!is_answer_proven(&ours, &said, other, &words, proof), "another connection");
        let again = TrunkOffer { challenge: other, ..said.clone() };
        assert!(!is_answer_proven(&ours, &again, given, &words, proof), "another connection");
        let mut to_other = said.clone();
        to_other.offer.to += 1;
        assert!(!is_answer_proven(&ours, &to_other, given, &words, proof), "another node");
        for changed in [
            TrunkWords { record_bytes: 1001, ..words },
            TrunkWords { version: 3, ..words },
            TrunkWords { taken: Some(1), ..words },
            TrunkWords { taken: None, ..words },
        ] {
            assert!(!is_answer_proven(&ours, &said, given, &changed, proof), "{changed:?}");
        }
        // What the one who dials says is no answer, whichever challenges it is given.
        for (own, given) in [(5, 6), (6, 5)]
            .map(|(own, given)| (Challenge([own; PROOF_BYTES]), Challenge([given; PROOF_BYTES])))
        {
            let offered = TrunkOffer { challenge: Some(own), ..said.clone() };
            let proof = prove(&ours, &offered, &given);
            assert!(!is_answer_proven(&ours, &offered, Some(given), &words, proof));
            let bytes = bytes_of_answer(&offered, &given, &words);
            let offers = proof::prove(Some(&ours), Side::Offers, &own, &bytes);
            assert!(!is_answer_proven(&ours, &offered, Some(given), &words, Some(offers)));
        }
        assert_eq!(prove_answer(None, &said, given, &words), None, "no secret");
    }

    #[test]
    fn of_an_answer_every_word_has_to_be_there_and_its_version_one_that_was_offered() {
        let answer = |version, record_bytes| {
            let params = Params::new().uint_if("record_bytes", record_bytes);
            let mut out = Vec::new();
            params.uint_if("version", version).uint_if("taken", Some(3)).write(&mut out);
            out
        };
        let (said, own) = (said(), *VERSIONS.end());
        let believed = |answer: &[u8]| believed(&said, None, None, answer);
        let words = TrunkWords { record_bytes: 9, version: own, taken: Some(3) };
        assert_eq!(believed(&answer(Some(own), Some(9))), Ok(words));
        for (version, record_bytes, why) in [
            (None, Some(9), "names no version"),
            (Some(own), None, "names no record_bytes"),
            (Some(own + 1), Some(9), "not offered"),
            (Some(VERSIONS.start() - 1), Some(9), "not offered"),
        ] {
            let error = believed(&answer(version, record_bytes)).expect_err(why);
            assert!(error.contains(why), "{error}");
        }
        let mut odd = Vec::new();
        let params = Params::new().uint_if("record_bytes", Some(9)).uint_if("version", Some(own));
        params.bin("proof", b"short").write(&mut odd);
        assert!(believed(&odd).is_err_and(|why| why.contains("its proof is none")));
    }

    #[test]
    fn an_offer_is_believed_with_a_proof_over_its_own_challenge_and_every_word() {
        let (ours, theirs) = (secret("0123456789abcdef"), secret("0123456789abcdeF"));
        let judge = |said: &TrunkOffer, given| judge(Some(2), Some(&ours), said, given);
        let Ok(Err(challenge)) = judge(&said(), None) else { panic!("it asks for a proof") };
        let proven = |secret: &Secret, challenge| TrunkOffer {
            proof: prove(secret, &said(), challenge),
            ..said()
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
        for own in [None, Some(Challenge([4; PROOF_BYTES]))] {
            let forged = TrunkOffer { challenge: own, ..right.clone() };
            assert!(judge(&forged, Some(challenge)).is_err(), "its own challenge is a word of it");
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
