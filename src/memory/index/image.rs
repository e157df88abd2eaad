//! The graph as bytes, written in chunks while it is in use, and made again from them.
//!
//! An image is *fuzzy*: a chunk has its rows as they were when it was written, and between two chunks
//! vectors come and go. So the caller notes which rows changed after [`Index::begin_image`], and says so when
//! the image is loaded ([`Loader::finish`]). Rows whose chunk is damaged or missing, and those that have
//! changed, come back as a list of rows to insert again; links to what is not there any more are
//! replaced or dropped. Nodes that are hardly found any more, since those who linked to them were lost, are
//! inserted again too; and all are, where most would be. Whatever the chunks are, the graph that comes out
//! keeps the room's invariants.
//!
//! A chunk is a header of [`IMAGE_HEADER_BYTES`] and its rows, all numbers little-endian:
//!
//! | bytes of the header | content |
//! |---|---|
//! | 4 | `CFX1` |
//! | 4 | CRC-32 of all that follows, to the chunk's end |
//! | 4 | bytes of the rows |
//! | 4, 4 | first row, number of rows |
//! | 2, 1, 1 | dimensions, metric, what codes are: 0 of bytes, 1 float32, 2 of bytes around a centre, and 4 more where there are further ones, and 8 more under the dot product, where nodes link to near ones first |
//!
//! Where there is a centre, its float32 components stand before the rows. Where there are further ones, behind it stand
//! the number of the first of those that the chunks before had not, a byte, how many there are, another, and their
//! components. A row is one byte, zero when nothing is there, else its level and one. Then, where there are further
//! centres, the number of its own, a byte; scale and term in float32, the code, and for each layer from 0 the number of links and
//! the links. An image without further centres is what it was before there were any, and may have coarse codes: some rows are looked at, and
//! those that are coarse name the others ([`coarse`](super::coarse)).

use super::{
    centre::{FURTHER_MAX, First},
    error::Invalid,
    graph::{Graph, Index, Node, Row, State},
    kernels::Line,
    options::{IndexOptions, LEVEL_MAX, LINKS_BASE},
    prune::links_max,
    quantize::{COMPONENT_MAX, Coding, Metric, Terms},
    rows::NONE,
    steps::Budget,
};
use std::ops::Range;
use thiserror::Error;

const MAGIC: [u8; 4] = *b"CFX1";
/// Where what a chunk has begins.
pub const IMAGE_HEADER_BYTES: usize = 24;
/// A chunk ends with the row that brings it here: some ten microseconds of copying.
const CHUNK_BYTES: usize = 32 << 10;
/// And with this number of rows, as empty ones take no room.
pub(super) const CHUNK_ROWS: usize = 4096;
/// A node that lost links and to which fewer nodes lead is inserted again.
const LEADING_LEAST: u8 = 3;

/// What codes are.
const BYTES: u8 = 0;
pub(super) const FLOATS: u8 = 1;
pub(super) const BYTES_AROUND_CENTRE: u8 = 2;
/// Added to those of bytes.
pub(super) const AROUND_FURTHER: u8 = 4;
/// Added to any of the dot product: the first links of a node lead to near ones.
pub(super) const WITH_NEAR: u8 = 8;

/// Bytes of further centres in a chunk, but for the one that goes beyond.
const CENTRES_BYTES: usize = 32 << 10;
const CENTRE_BYTES_MAX: usize = super::DIMENSIONS_MAX * size_of::<f32>();

fn codes_of(graph: &Graph) -> u8 {
    let coding = &graph.coding;
    let of_first = match (coding.has_floats(), coding.centre.is_empty()) {
        (true, _) => FLOATS,
        (false, true) => BYTES,
        (false, false) => BYTES_AROUND_CENTRE,
    };
    let of_links = if graph.links_products(0) && graph.has_near { WITH_NEAR } else { 0 };
    of_first + if coding.has_several() { AROUND_FURTHER } else { 0 } + of_links
}

/// An image that is being written.
pub struct Image {
    next: Row,
    /// Further centres that its chunks have, of those of this edition.
    centres: usize,
    edition: u32,
}

/// Why a chunk was not taken. The rows that it had will be among those to insert again.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Damaged {
    /// What is there is no chunk, or its end is missing.
    #[error("no chunk, or its end is missing")]
    Cut,
    /// The checksum is another.
    #[error("the checksum of the chunk is {found:#010x}, not {expected:#010x}")]
    Checksum {
        /// What the chunk says.
        expected: u32,
        /// What its bytes give.
        found: u32,
    },
    /// The chunk is of an index with other options.
    #[error("the chunk belongs to an index with another {0}")]
    Other(&'static str),
    /// Rows came twice, or have what no index writes.
    #[error("rows {0:?} of the chunk came twice or are malformed")]
    Rows(Range<Row>),
}

/// What the caller has at a row, when an image is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// No vector.
    Nothing,
    /// The vector that was there when the image began.
    Same,
    /// A vector that came after the image began.
    Changed,
}

/// Makes an index from the chunks of an image, in any order.
pub struct Loader {
    index: Index,
    /// Chunks are around different centres: the first one or the last one was chosen while they were written.
    is_mixed: bool,
}

impl Index {
    /// Begins an image of what is there now.
    pub fn begin_image(&self) -> Image {
        Image { next: 0, centres: 0, edition: self.graph.coding.edition }
    }
}

impl Image {
    /// Appends the next chunk and returns its rows; nothing when the image is complete.
    pub fn chunk(&mut self, index: &Index, bytes: &mut Vec<u8>) -> Option<Range<Row>> {
        let graph = &index.graph;
        let first = self.next;
        if first as usize >= graph.nodes.len() {
            return None;
        }
        let start = bytes.len();
        bytes.resize(start + IMAGE_HEADER_BYTES, 0);
        write_floats(&graph.coding.centre, bytes);
        let has_all = self.write_further(&graph.coding, bytes);
        let rows_start = bytes.len();
        // No row before its centre.
        let rows = if has_all { CHUNK_ROWS } else { 0 };
        let end = graph.nodes.len().min(first as usize + rows) as Row;
        while self.next < end && bytes.len() - rows_start < CHUNK_BYTES {
            graph.write_row(self.next, bytes);
            self.next += 1;
        }
        let chunk = &mut bytes[start..];
        let rows_bytes = (chunk.len() - IMAGE_HEADER_BYTES) as u32;
        chunk[..4].copy_from_slice(&MAGIC);
        chunk[8..12].copy_from_slice(&rows_bytes.to_le_bytes());
        chunk[12..16].copy_from_slice(&first.to_le_bytes());
        chunk[16..20].copy_from_slice(&(self.next - first).to_le_bytes());
        chunk[20..22].copy_from_slice(&(index.options.dimensions as u16).to_le_bytes());
        chunk[22] = index.options.metric as u8;
        chunk[23] = codes_of(graph);
        let checksum = crc32fast::hash(&chunk[8..]);
        chunk[4..8].copy_from_slice(&checksum.to_le_bytes());
        Some(first..self.next)
    }

    /// Writes some of the further centres that no chunk has yet; whether that was all of them.
    fn write_further(&mut self, coding: &Coding, bytes: &mut Vec<u8>) -> bool {
        if !coding.has_several() {
            return true;
        }
        if self.edition != coding.edition {
            (self.edition, self.centres) = (coding.edition, 0);
        }
        let at_once = (CENTRES_BYTES / (coding.dimensions * size_of::<f32>())).max(1);
        let centres = coding.further[self.centres..].iter().take(at_once);
        bytes.extend([self.centres as u8 + 1, centres.len() as u8]);
        self.centres += centres.len();
        centres.for_each(|centre| write_floats(centre, bytes));
        self.centres == coding.further.len()
    }
}

fn write_floats(floats: &[f32], bytes: &mut Vec<u8>) {
    floats.iter().for_each(|float| bytes.extend(float.to_le_bytes()));
}

impl Graph {
    fn write_row(&self, row: Row, bytes: &mut Vec<u8>) {
        let node = &self.nodes[row as usize];
        if matches!(node.state, State::Free | State::Promised | State::Late) {
            bytes.push(0);
            return;
        }
        bytes.push(node.level + 1);
        if self.coding.has_several() {
            bytes.push(node.centre);
        }
        let Terms { scale, term } = self.terms[row as usize];
        bytes.extend(scale.to_le_bytes());
        bytes.extend(term.to_le_bytes());
        let code = self.codes.get(row).iter().map(|line| &line.0[..]);
        let end = bytes.len() + self.coding.bytes();
        code.for_each(|line| bytes.extend_from_slice(line));
        bytes.truncate(end);
        for layer in 0..=usize::from(node.level) {
            let links = self.links(row, layer);
            bytes.push(links.len() as u8);
            links.iter().for_each(|link| bytes.extend(link.to_le_bytes()));
        }
    }
}

impl Loader {
    /// Makes an index with these options; dimensions and metric must be the image's.
    ///
    /// # Errors
    ///
    /// An option is out of its range.
    pub fn new(options: IndexOptions) -> Result<Self, Invalid> {
        Ok(Self { index: Index::new(options)?, is_mixed: false })
    }

    /// How long the chunk is that begins here, as its header says; nothing when that is no header.
    pub fn chunk_bytes(header: &[u8]) -> Option<usize> {
        let header = header.get(..IMAGE_HEADER_BYTES)?;
        let rows_bytes = u32_at(header, 8) as usize;
        // A row may be longer than what is left of a chunk, and no row is longer than this.
        const ROW_BYTES_MAX: usize = super::DIMENSIONS_MAX + 1024;
        const ALL_CENTRES_MAX: usize = 2 * CENTRE_BYTES_MAX + CENTRES_BYTES + 2;
        const BYTES_MAX: usize = ALL_CENTRES_MAX + CHUNK_BYTES + ROW_BYTES_MAX;
        let is_header = header[..4] == MAGIC && rows_bytes <= BYTES_MAX;
        is_header.then_some(IMAGE_HEADER_BYTES + rows_bytes)
    }

    /// Takes one chunk, and returns its rows.
    ///
    /// # Errors
    ///
    /// The chunk is damaged; nothing of it was taken, but for some of its rows when they are malformed under a
    /// correct checksum.
    pub fn chunk(&mut self, bytes: &[u8]) -> Result<Range<Row>, Damaged> {
        if Self::chunk_bytes(bytes) != Some(bytes.len()) {
            return Err(Damaged::Cut);
        }
        let (expected, found) = (u32_at(bytes, 4), crc32fast::hash(&bytes[8..]));
        if expected != found {
            return Err(Damaged::Checksum { expected, found });
        }
        let options = &self.index.options;
        if usize::from(u16::from_le_bytes([bytes[20], bytes[21]])) != options.dimensions {
            return Err(Damaged::Other("number of dimensions"));
        }
        if bytes[22] != options.metric as u8 {
            return Err(Damaged::Other("metric"));
        }
        let (first, count) = (u32_at(bytes, 12), u32_at(bytes, 16));
        let end = first.checked_add(count).filter(|&end| end <= options.vectors_max);
        let Some(end) = end.filter(|_| count as usize <= CHUNK_ROWS) else {
            return Err(Damaged::Other("number of rows"));
        };
        let mut rest = Reader(&bytes[IMAGE_HEADER_BYTES..]);
        let has_several = self.take_centres(bytes[23], &mut rest)?;
        self.index.graph.extend(end);
        for row in first..end {
            if self.read_row(row, has_several, &mut rest).is_none() {
                return Err(Damaged::Rows(row..end));
            }
        }
        if rest.0.is_empty() { Ok(first..end) } else { Err(Damaged::Rows(end..end)) }
    }

    /// Takes the centres that codes of a chunk are around; whether there are several. The first centre of the first chunk is
    /// that of all, and so is each further one.
    fn take_centres(&mut self, codes: u8, rest: &mut Reader) -> Result<bool, Damaged> {
        let Graph { coding, has_near, .. } = &mut self.index.graph;
        let of_links = if coding.metric == Metric::Dot { codes & WITH_NEAR } else { 0 };
        let codes = codes - of_links;
        let is_known = match coding.has_floats() {
            true => codes == FLOATS,
            false => codes & !(BYTES_AROUND_CENTRE | AROUND_FURTHER) == BYTES,
        };
        if !is_known {
            return Err(Damaged::Other("kind of codes"));
        }
        *has_near &= of_links > 0 || coding.metric != Metric::Dot;
        let dimensions = coding.dimensions;
        let first = match codes & BYTES_AROUND_CENTRE {
            0 => Vec::new(),
            _ => rest.centre(dimensions).ok_or(Damaged::Cut)?,
        };
        if self.index.first.take().is_some() {
            coding.set_centre(first);
        } else if first != coding.centre {
            self.is_mixed = true;
            return Err(Damaged::Other("centre"));
        }
        if codes & AROUND_FURTHER == 0 {
            return Ok(false);
        }
        let numbers = rest.take(2).ok_or(Damaged::Cut)?;
        let (from, count) = (usize::from(numbers[0]), usize::from(numbers[1]));
        let is_well = from > 0 && from + count <= FURTHER_MAX + 1;
        for place in (from..from + count).filter(|_| is_well).map(|number| number - 1) {
            let centre = rest.centre(dimensions).ok_or(Damaged::Cut)?.into_boxed_slice();
            if coding.further.len() <= place {
                coding.further.resize_with(place + 1, Box::default);
            }
            let known = &mut coding.further[place];
            if known.is_empty() {
                *known = centre;
            } else if *known != centre {
                self.is_mixed = true;
                return Err(Damaged::Other("centre"));
            }
        }
        if is_well { Ok(true) } else { Err(Damaged::Other("number of centres")) }
    }

    /// Whether a chunk had this centre.
    fn has_centre(&self, number: u8) -> bool {
        let further = &self.index.graph.coding.further;
        match usize::from(number).checked_sub(1) {
            Some(place) => further.get(place).is_some_and(|centre| !centre.is_empty()),
            None => true,
        }
    }

    /// Takes a row; nothing when it is malformed.
    fn read_row(&mut self, row: Row, has_several: bool, rest: &mut Reader) -> Option<()> {
        let Some(level) = rest.take(1)?[0].checked_sub(1) else { return Some(()) };
        let graph = &mut self.index.graph;
        if usize::from(level) > LEVEL_MAX || graph.nodes[row as usize].state != State::Free {
            return None;
        }
        let centre = if has_several { rest.take(1)?[0] } else { 0 };
        let terms = Terms { scale: rest.f32()?, term: rest.f32()? };
        // No code has larger steps, and their square is finite.
        let is_step = terms.scale.abs() <= COMPONENT_MAX;
        if !is_step || !terms.term.is_finite() {
            return None;
        }
        let code = rest.take(graph.coding.bytes())?;
        let mut links = [[NONE; LINKS_BASE]; LEVEL_MAX + 1];
        for (layer, links) in links.iter_mut().enumerate().take(usize::from(level) + 1) {
            let count = usize::from(rest.take(1)?[0]);
            for link in links.get_mut(..count).filter(|_| count <= links_max(layer))? {
                *link = u32::from_le_bytes(rest.take(4)?.try_into().ok()?);
            }
        }
        if !self.has_centre(centre) {
            // The chunk that had it is lost, and the row with it.
            return Some(());
        }
        let graph = &mut self.index.graph;
        let tower = if level == 0 { NONE } else { graph.take_tower() };
        graph.terms[row as usize] = terms;
        // Dead until it is known what the caller has.
        graph.nodes[row as usize] = Node { centre, ..Node::new(tower, level, State::Dead) };
        // What fills up the last line, too, as a stored code has it.
        let rest = if graph.coding.has_floats() { Line::ZERO } else { Line::REST };
        for (line, code) in graph.codes.get_mut(row).iter_mut().zip(code.chunks(Line::BYTES)) {
            *line = rest;
            line.0[..code.len()].copy_from_slice(code);
        }
        graph.take_link_terms(row);
        for (layer, links) in links.iter().enumerate().take(usize::from(level) + 1) {
            let places = graph.links_mut(row, layer);
            places.copy_from_slice(&links[..places.len()]);
        }
        Some(())
    }

    /// The index, and the rows that must be inserted again ([`Index::insert_at`]) before it has all that is
    /// wanted; nobody else is given them.
    ///
    /// `rows` is how many rows the caller has, and `wanted` what is at each. Takes as long as a pass over
    /// all nodes and their links.
    ///
    /// # Errors
    ///
    /// `rows` is above the options' `vectors_max`.
    pub fn finish(
        self,
        rows: Row,
        wanted: impl Fn(Row) -> Wanted,
    ) -> Result<(Index, Vec<Row>), Invalid> {
        let mut index = self.index;
        if rows > index.options.vectors_max {
            return Err(Invalid::Full { max: index.options.vectors_max });
        }
        index.graph.extend(rows);
        let total = index.graph.nodes.len() as Row;
        let wanted = |row| if row < rows { wanted(row) } else { Wanted::Nothing };
        let mut highest = None;
        let mut is_torn = false;
        // Of the nodes that live: those that lost many links, and those that lost any.
        let (mut thin, mut frayed) = (Vec::new(), Vec::new());
        for row in 0..total {
            let node = &mut index.graph.nodes[row as usize];
            if node.state == State::Free {
                is_torn |= wanted(row) == Wanted::Same;
                continue;
            }
            highest = highest.max(Some((node.level, row)));
            if wanted(row) == Wanted::Same {
                node.state = State::Live;
                index.live.enter(row);
            } else {
                index.bury(row);
            }
            let (before, after) = index.graph.repair_links(row);
            if after < before && index.graph.is_live(row) {
                let is_thin = 3 * after <= 2 * before;
                if is_thin { &mut thin } else { &mut frayed }.push(row);
            }
        }
        index.graph.entry = highest.map(|(_, row)| row);
        if is_torn {
            let is_ruin = 2 * thin.len() > index.live.len();
            thin.into_iter().for_each(|row| index.bury_live(row));
            if is_ruin {
                (0..total).for_each(|row| index.bury_live(row));
            }
            index.bury_unreachable(&frayed);
        }
        if self.is_mixed || index.may_lack_centre() {
            (0..total).for_each(|row| index.bury_live(row));
        }
        // Nothing is open, so rows are free as soon as they are swept.
        let mut scratch = index.scratches.take();
        index.sweep_on(&mut scratch, &mut Budget::unlimited());
        index.scratches.put(scratch);
        index.forget_unused_centres();
        index.look_for_coarse_rows();
        index.generations = Default::default();
        let mut again = Vec::new();
        // The last ones first: the first rows are taken first then.
        for row in (0..total).rev() {
            if index.graph.is_live(row) {
                continue;
            }
            if wanted(row) == Wanted::Nothing {
                index.generations.rest(row);
            } else {
                index.graph.nodes[row as usize].state = State::Promised;
                again.push(row);
            }
        }
        if index.live.is_empty() {
            index.forget_centre();
            // All are linked anew.
            index.graph.has_near = true;
        }
        index.promised = again.len();
        // A release of before made no passes.
        index.reach.ask();
        again.reverse();
        Ok((index, again))
    }
}

impl Index {
    /// Whether the image began before there were enough vectors to choose a centre.
    fn may_lack_centre(&self) -> bool {
        let coding = &self.graph.coding;
        let is_small = self.live.len() < First::enough(coding.dimensions);
        coding.has_choice() && coding.centre.is_empty() && is_small
    }

    fn bury_live(&mut self, row: Row) {
        if self.contains(row) {
            self.live.leave(row);
            self.bury(row);
        }
    }

    /// Buries nodes that are hardly found any more: those of the `frayed` to which few nodes lead that
    /// live, and all to which no way leads through such nodes on the lowest layer.
    fn bury_unreachable(&mut self, frayed: &[Row]) {
        let mut leading = vec![0_u8; self.graph.nodes.len()];
        for row in self.live_rows() {
            for &link in self.graph.links(row, 0) {
                leading[link as usize] = leading[link as usize].saturating_add(1);
            }
        }
        for &row in frayed.iter().filter(|&&row| leading[row as usize] < LEADING_LEAST) {
            self.bury_live(row);
        }
        let graph = &self.graph;
        let mut is_reached = vec![false; graph.nodes.len()];
        let highest = self.live_rows().max_by_key(|&row| graph.level(row));
        let mut ahead: Vec<Row> = highest.into_iter().collect();
        while let Some(row) = ahead.pop() {
            if graph.is_live(row) && !std::mem::replace(&mut is_reached[row as usize], true) {
                let links = graph.links(row, 0).iter();
                ahead.extend(links.filter(|&&link| !is_reached[link as usize]));
            }
        }
        for (row, is_reached) in (0..).zip(is_reached) {
            if !is_reached {
                self.bury_live(row);
            }
        }
    }

    fn live_rows(&self) -> impl Iterator<Item = Row> + '_ {
        (0..self.graph.nodes.len() as Row).filter(|&row| self.contains(row))
    }
}

impl Graph {
    /// Makes room for rows, which are free.
    fn extend(&mut self, rows: Row) {
        for row in self.nodes.len() as Row..rows {
            self.codes.reserve(row);
            self.base.reserve(row);
            self.nodes.push(Node::FREE);
            self.push_terms();
            self.set_links(row, 0, &[]);
        }
    }

    /// Terms by the metric of links are told by the code.
    fn take_link_terms(&mut self, row: Row) {
        if self.coding.metric == Metric::Dot {
            let Terms { scale, .. } = self.terms[row as usize];
            let term = scale * scale * self.coding.squared_code(self.codes.get(row));
            self.link_terms[row as usize] = Terms { scale, term };
        }
        self.note_length(row);
    }

    /// Drops links that no graph has: to no node, to the node itself, twice, above their target's level.
    /// The number of those on the lowest layer, before and after.
    fn repair_links(&mut self, row: Row) -> (usize, usize) {
        let before = self.links(row, 0).len();
        for layer in 0..=self.level(row) {
            let mut kept = [0; LINKS_BASE];
            let mut count = 0;
            for &link in self.links(row, layer) {
                let is_node = |node: &Node| {
                    node.state != State::Free && usize::from(node.level) >= layer && link != row
                };
                if self.nodes.get(link as usize).is_some_and(is_node)
                    && !kept[..count].contains(&link)
                {
                    kept[count] = link;
                    count += 1;
                }
            }
            self.set_links(row, layer, &kept[..count]);
        }
        (before, self.links(row, 0).len())
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// What is left of a chunk.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn centre(&mut self, dimensions: usize) -> Option<Vec<f32>> {
        let mut component = || self.f32().filter(|component| component.abs() < COMPONENT_MAX);
        (0..dimensions).map(|_| component()).collect()
    }

    fn f32(&mut self) -> Option<f32> {
        Some(f32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }
}
