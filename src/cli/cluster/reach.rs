//! Asks the nodes of a cluster, one after the other, until what is to be reached is so.

use super::{
    aim::{Aim, Said},
    seen::Seen,
};
use crate::{
    cli::remote::{Remote, Trouble},
    client::{Client, ClientError, Params, Refusal, Target, View},
    config::Config,
    wire::secret::Secret,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::{Duration, Instant},
};

/// The pause between two rounds of questions.
const PAUSE: Duration = Duration::from_millis(200);
/// How long one node may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// How long a leader may say that it is not possible now: connections come and go.
const NOT_NOW_LIMIT: Duration = Duration::from_secs(5);

/// The nodes of a cluster that are known, by their addresses for clients.
struct Nodes {
    token: Option<Secret>,
    known: BTreeMap<SocketAddr, Option<Client>>,
}

impl Nodes {
    /// Calls a node; one that does not answer is dialled again the next time.
    fn call<T>(
        &mut self,
        address: SocketAddr,
        method: &str,
        params: &Params,
        read: impl FnOnce(View<'_>) -> Option<T>,
    ) -> Result<Option<T>, ClientError> {
        let client = self.known.entry(address).or_default();
        let mut connected = match client.take() {
            Some(connected) => connected,
            None => {
                let target = Target { address, token: self.token.clone() };
                Client::connect(target, ANSWER_LIMIT)?
            }
        };
        let answer = connected.call(method, params).map(read);
        if !matches!(&answer, Err(error) if error.is_uncertain()) {
            *client = Some(connected);
        }
        answer
    }

    /// What all nodes see that answer, those among them that others know of.
    ///
    /// # Errors
    /// One of them wants another token.
    fn look(&mut self) -> Result<Vec<(SocketAddr, Seen)>, Trouble> {
        let mut all: Vec<(SocketAddr, Seen)> = Vec::new();
        let mut asked = BTreeSet::new();
        while let Some(address) = self.known.keys().copied().find(|it| !asked.contains(it)) {
            asked.insert(address);
            match self.call(address, "cluster.status", &Params::new(), Seen::of) {
                Ok(Some(seen)) => {
                    for known in seen.nodes.iter().filter_map(|node| node.rpc) {
                        self.known.entry(known).or_default();
                    }
                    all.push((address, seen));
                }
                Err(ClientError::Refused(Refusal { code, message, .. }))
                    if code == "unauthorized" =>
                {
                    return Err(Trouble::Failed(format!("{address}: {message} ({code})")));
                }
                // It is asked again in the next round.
                Ok(None) | Err(_) => {}
            }
        }
        Ok(all)
    }
}

/// Goes on until the aim is reached, and tells what changes on the way.
///
/// # Errors
/// It is refused, or not reached within `limit`.
pub fn reach(
    aim: &Aim,
    first: &mut Remote,
    config: &Config,
    limit: Duration,
    tell: &mut dyn FnMut(&str),
) -> Result<(), Trouble> {
    // A wrong token, or a node that is alone, is told at once.
    first.call("cluster.status", &Params::new())?;
    let token = config.token().map_err(|error| Trouble::Usage(error.to_string()))?;
    let mut nodes = Nodes { token, known: BTreeMap::from([(first.address(), None)]) };
    let deadline = Instant::now() + limit;
    let (mut told, mut not_now_since, mut has_told_place) = (String::new(), None, false);
    loop {
        let seen = nodes.look()?;
        let views: Vec<_> = seen.iter().map(|(_, seen)| seen.clone()).collect();
        if let Some(why) = aim.impossible(&views) {
            return Err(Trouble::Failed(why));
        }
        let mut progress = aim.progress(&views);
        if let Some(node) = aim.untold(&views).filter(|_| !has_told_place) {
            // Nodes whose configuration says otherwise keep to that, so once is enough.
            has_told_place = true;
            progress.ask.push(node);
            progress.is_reached = false;
        }
        if progress.text != told {
            tell(&progress.text);
            told.clone_from(&progress.text);
        }
        if progress.is_reached {
            return Ok(());
        }
        let asked = seen.iter().filter(|(_, seen)| progress.ask.contains(&seen.node));
        let mut not_now = None;
        for (address, _) in asked {
            match ask(&mut nodes, *address, aim)? {
                (Said::Never, why) => return Err(Trouble::Failed(why)),
                (Said::NotNow, why) => not_now = Some(why),
                (Said::GoesOn, _) => {}
            }
        }
        match not_now {
            None => not_now_since = None,
            Some(why) => {
                let since: Instant = *not_now_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= NOT_NOW_LIMIT {
                    return Err(Trouble::Failed(format!("{why}; {}", aim.hint())));
                }
            }
        }
        if Instant::now() >= deadline {
            let seconds = limit.as_secs();
            let text = format!("not within {seconds} s: {told}; {}", aim.hint());
            return Err(Trouble::Failed(text));
        }
        std::thread::sleep(PAUSE);
    }
}

/// Asks a node for it; the worst of what it said of its partitions.
fn ask(nodes: &mut Nodes, address: SocketAddr, aim: &Aim) -> Result<(Said, String), Trouble> {
    let (method, params) = aim.request();
    let read = |answer: View<'_>| {
        let partitions = answer.get("partitions")?;
        let text = |it: View<'_>, name| it.get(name).and_then(View::str).unwrap_or("").to_owned();
        let said = partitions.items().map(|it| {
            let partition = it.get("partition").and_then(View::uint).unwrap_or(0);
            let why = format!("partition {partition}: {}", text(it, "message"));
            (Said::of(&text(it, "outcome")), why)
        });
        said.max_by_key(|(said, _)| *said as u8)
    };
    match nodes.call(address, method, &params, read) {
        Ok(said) => Ok(said.unwrap_or((Said::GoesOn, String::new()))),
        // Somebody else leads meanwhile, or the node is busy, or away: the next round tells.
        Err(ClientError::Refused(Refusal { code, message, .. }))
            if ["invalid", "conflict", "unauthorized"].contains(&&*code) =>
        {
            Err(Trouble::Failed(format!("{message} ({code})")))
        }
        Err(_) => Ok((Said::GoesOn, String::new())),
    }
}
