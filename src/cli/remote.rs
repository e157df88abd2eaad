//! What the subcommands share that talk to a running node.

use super::common::{Common, EXIT_WRONG_USAGE, printed};
use crate::{
    client::{Client, ClientError, Params, Refusal, Target, View},
    config::Config,
    wire::{
        json::{self, Document},
        msgpack::DEPTH_MAX,
    },
};
use clap::Args;
use std::{
    io::{self, Read, Write},
    net::{SocketAddr, ToSocketAddrs},
    process::ExitCode,
    time::Duration,
};

/// What the JSON of a command line is called that may be anything.
const PAYLOAD: &str = "the payload";
/// How long a connection and an answer may take, beside what a request itself waits for.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Which node to talk to.
#[derive(Args, Clone, Debug, Default)]
pub struct Connect {
    /// Where the node listens for MessagePack-RPC, such as 127.0.0.1:7450 [default:
    /// the configured one, server.rpc_address or that of its [[node]] entry]
    #[arg(long, global = true, value_name = "ADDR")]
    connect: Option<String>,
}

/// Why a subcommand did not do what it should.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The command line, the configuration or the request is wrong: exit code 2.
    Usage(String),
    /// It did not work out: exit code 1.
    Failed(String),
    /// Standard output did not take the result.
    Output(io::Error),
}

impl Trouble {
    /// What is told of it; nothing where nobody is left to tell.
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Usage(text) | Self::Failed(text) => Some(text),
            Self::Output(_) => None,
        }
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl From<Refusal> for Trouble {
    fn from(refusal: Refusal) -> Self {
        let Refusal { code, message, .. } = refusal;
        match &*code {
            "invalid" | "too_large" => Self::Usage(message),
            "unauthorized" => Self::Failed(format!(
                "{message} ({code}); give this command the node's --config, or \
                 --set server.token_file=FILE"
            )),
            _ => Self::Failed(format!("{message} ({code})")),
        }
    }
}

/// A connection to the node that the flags name.
pub(super) struct Remote {
    client: Client,
    address: SocketAddr,
    target: Target,
    /// Largest payload, bytes: beyond it the node would refuse the request.
    payload_bytes_max: usize,
}

/// Connects, does `work` with the node and tells the exit code.
///
/// `work` tells whether the outcome is the good one.
pub(super) fn run(
    connect: &Connect,
    common: &Common,
    err: &mut dyn Write,
    work: impl FnOnce(&mut Remote) -> Result<bool, Trouble>,
) -> ExitCode {
    run_telling(connect, common, err, |remote, _, _| work(remote))
}

/// The same, with the configuration, for work that tells how far it is.
pub(super) fn run_telling(
    connect: &Connect,
    common: &Common,
    err: &mut dyn Write,
    work: impl FnOnce(&mut Remote, &Config, &mut dyn Write) -> Result<bool, Trouble>,
) -> ExitCode {
    let config = match common.load_or_explain(err) {
        Ok(config) => config,
        Err(code) => return code,
    };
    let opened = Remote::open(connect, &config);
    let outcome = opened.and_then(|mut remote| work(&mut remote, &config, err));
    let (code, text) = match outcome {
        Ok(true) => return ExitCode::SUCCESS,
        Ok(false) => return ExitCode::FAILURE,
        Err(Trouble::Usage(text)) => (ExitCode::from(EXIT_WRONG_USAGE), text),
        Err(Trouble::Failed(text)) => (ExitCode::FAILURE, text),
        Err(Trouble::Output(error)) => return printed(Err(error), ExitCode::SUCCESS),
    };
    // Nobody is left to tell when standard error is closed.
    let _ = writeln!(err, "error: {text}");
    code
}

impl Remote {
    fn open(connect: &Connect, config: &Config) -> Result<Self, Trouble> {
        let address = match &connect.connect {
            Some(text) => resolve(text)?,
            None if config.listen().rpc.port() == 0 => {
                let text = "server.rpc_address has port 0, so the system chose the node's: name \
                            it with --connect ADDR";
                return Err(Trouble::Usage(text.into()));
            }
            None => config.listen().rpc,
        };
        let token = config.token().map_err(|error| Trouble::Usage(error.to_string()))?;
        let target = Target { address, token };
        match Client::connect(&target, TIMEOUT) {
            Ok(client) => {
                let payload_bytes_max = config.server.max_frame_bytes;
                Ok(Self { client, address, target, payload_bytes_max })
            }
            Err(ClientError::Refused(refusal)) => Err(refusal.into()),
            Err(error) => Err(Trouble::Failed(format!(
                "{error}; start a node with `coreflow serve` or `scripts/pin.sh`, or name another \
                 with --connect ADDR"
            ))),
        }
    }

    /// Where the node is.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What another connection to the same node needs.
    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    /// Calls a method; its answer borrows from the connection.
    pub(super) fn call(&mut self, method: &str, params: &Params) -> Result<View<'_>, Trouble> {
        self.call_waiting(method, params, 0)
    }

    /// Calls a method that waits up to `wait_ms` by itself.
    pub(super) fn call_waiting(
        &mut self,
        method: &str,
        params: &Params,
        wait_ms: u64,
    ) -> Result<View<'_>, Trouble> {
        let limit = TIMEOUT.saturating_add(Duration::from_millis(wait_ms));
        self.client.call_within(method, params, limit).map_err(|error| match error {
            ClientError::Refused(refusal) => refusal.into(),
            error @ ClientError::Garbled(_) => Trouble::Failed(format!(
                "{error}; is {} the node's port for MessagePack-RPC?",
                self.address
            )),
            error => Trouble::Failed(format!("{error}; whether it was done is not known")),
        })
    }

    /// The payload of a command line, as MessagePack; `-` reads standard input.
    pub(super) fn payload(&self, text: &str) -> Result<Vec<u8>, Trouble> {
        self.json(PAYLOAD, text)
    }

    /// The same for what `name` names.
    pub(super) fn json(&self, name: &str, text: &str) -> Result<Vec<u8>, Trouble> {
        match text {
            "-" => json_from(name, io::stdin().lock(), self.payload_bytes_max),
            text => to_msgpack(name, text.as_bytes().to_vec(), self.payload_bytes_max),
        }
    }
}

fn resolve(text: &str) -> Result<SocketAddr, Trouble> {
    let found = text.to_socket_addrs().map(|mut found| found.next());
    match found {
        Ok(Some(address)) => Ok(address),
        _ => Err(Trouble::Usage(format!(
            "--connect: {text:?} is no address with a port, such as 127.0.0.1:7450"
        ))),
    }
}

fn json_from(name: &str, input: impl Read, bytes_max: usize) -> Result<Vec<u8>, Trouble> {
    let mut text = Vec::new();
    let read = input.take(bytes_max as u64 + 1).read_to_end(&mut text);
    read.map_err(|error| Trouble::Failed(format!("standard input cannot be read: {error}")))?;
    to_msgpack(name, text, bytes_max)
}

fn to_msgpack(name: &str, mut text: Vec<u8>, bytes_max: usize) -> Result<Vec<u8>, Trouble> {
    let document = Document::parse(&mut text, bytes_max).map_err(|error| {
        let hint = match error {
            json::Error::Syntax(_) if name == PAYLOAD => {
                r#"; a text needs its quotes too: '"text"'"#
            }
            json::Error::Syntax(_) => "",
            json::Error::TooLarge(_) => " (server.max_frame_bytes)",
            json::Error::TooDeep => "",
        };
        Trouble::Usage(format!("{name} is {error}{hint}"))
    })?;
    let mut payload = Vec::new();
    json::to_msgpack(document.root(), &mut payload);
    Ok(payload)
}

/// Writes an answer as one line of JSON.
pub(super) fn print_json(out: &mut dyn Write, answer: View<'_>) -> Result<(), Trouble> {
    Ok(writeln!(out, "{}", json_of(answer)?)?)
}

/// An answer as JSON text.
pub(super) fn json_of(answer: View<'_>) -> Result<String, Trouble> {
    let too_deep = |_| {
        Trouble::Failed(format!("the answer is nested deeper than {DEPTH_MAX}, which JSON is not"))
    };
    answer.to_json().map_err(too_deep)
}

/// Lines in columns, as wide as their widest entry.
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings.
    pub(super) fn new(headings: &[&str]) -> Self {
        Self { rows: vec![headings.iter().map(|&heading| heading.to_owned()).collect()] }
    }

    /// Adds the fields of a map, by name; a field that is not there is a dash.
    pub(super) fn add(&mut self, map: View<'_>, fields: &[&str]) {
        let text = |name: &&str| map.get(name).map_or_else(|| "-".to_owned(), cell);
        self.rows.push(fields.iter().map(text).collect());
    }

    /// Adds a line.
    pub(super) fn row<const COLUMNS: usize>(&mut self, cells: [String; COLUMNS]) {
        assert_eq!(COLUMNS, self.rows[0].len(), "a line has a cell for each heading");
        self.rows.push(cells.into());
    }

    /// Writes the lines.
    pub(super) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let columns = self.rows[0].len();
        let width = |column: usize| {
            let widths = self.rows.iter().map(|row| row[column].chars().count());
            widths.max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..columns).map(width).collect();
        for row in &self.rows {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
            writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        Ok(())
    }
}

/// A value as a table shows it.
pub(super) fn cell(value: View<'_>) -> String {
    match (value.str(), value.float().filter(|_| value.is_float())) {
        (Some(text), _) => one_line(text),
        (None, Some(number)) => format!("{number:.4}"),
        (None, None) => value.to_json().unwrap_or_default(),
    }
}

/// The text without what would break a table or steer a terminal.
pub(super) fn one_line(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(outcome: Result<Vec<u8>, Trouble>) -> String {
        match outcome {
            Err(Trouble::Usage(text)) => text,
            other => panic!("not wrong usage: {other:?}"),
        }
    }

    #[test]
    fn a_payload_is_json_and_otherwise_the_user_is_told_how_to_write_it() {
        let to_msgpack = |text, max| to_msgpack(PAYLOAD, text, max);
        assert_eq!(to_msgpack(b"{\"n\":[1]}".to_vec(), 100).unwrap(), [0x81, 0xa1, b'n', 0x91, 1]);
        assert_eq!(json_from(PAYLOAD, &b" 7 \n"[..], 100).unwrap(), [7]);
        assert!(usage(to_msgpack(b"abc".to_vec(), 100)).contains(r#"'"text"'"#));
        assert!(usage(json_from(PAYLOAD, &[b'1'; 101][..], 100)).contains("larger than 100 bytes"));
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_entry() {
        let params = Params::new().str("id", "t1").str("error", "a\nb").uint_if("n", Some(3));
        let mut bytes = Vec::new();
        params.write(&mut bytes);
        let mut table = Table::new(&["ID", "N", "TYPE", "ERROR"]);
        table.add(View::new(&bytes), &["id", "n", "type", "error"]);
        let mut out = Vec::new();
        table.write(&mut out).unwrap();
        let lines = "ID  N  TYPE  ERROR\nt1  3  -     a b\n";
        assert_eq!(String::from_utf8(out).unwrap(), lines);
    }

    #[test]
    fn an_address_may_be_a_name() {
        assert!(resolve("localhost:7450").is_ok_and(|address| address.port() == 7450));
        let Err(Trouble::Usage(text)) = resolve("7450") else { panic!("a bare port is taken") };
        assert!(text.contains("127.0.0.1:7450"), "{text}");
    }
}
