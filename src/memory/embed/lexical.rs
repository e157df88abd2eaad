//! The lexical embedder: two texts are near when they share words, or pieces of words.
//!
//! It knows no meaning: "car" and "automobile" are strangers to it, "car" and "cars" are not. What it
//! has is that it needs no model, is the same everywhere, and takes microseconds.
//!
//! Features are hashed into the dimensions with a sign (Weinberger et al.: *Feature Hashing for Large
//! Scale Multitask Learning*, 2009), so that what falls together cancels on average:
//!
//! | feature | weight |
//! |---|---|
//! | a word | 1, less for one of fewer than five letters |
//! | two words that follow each other | half of the shorter one's |
//! | three letters that follow each other in a word, its ends included | half of the word's, for all of them together |
//!
//! A feature that is there *n* times counts 1 + ln *n* times. Letters and digits in a row are a word; a
//! letter of a script without spaces between words, and any sign beyond ASCII, is a word of its own.
//!
//! How a text is written does not count: letters are compared as Unicode's NFKC has them (Standard Annex
//! 15), without case, so that a letter with its accent is the same as the two that make it, a ligature
//! its letters and a full-width letter a letter.

use unicode_normalization::{UnicodeNormalization, char::is_combining_mark};

/// What a text without any word cannot have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the text has no word in it, so it has no vector")]
pub struct NoWords;

/// The name of what it makes of texts. The first version took letters as they were written: it made
/// the same of texts in ASCII, and other vectors of some others.
pub const LEXICAL_NAME: &str = "lexical-2";

/// A maker of vectors of one length.
#[derive(Clone, Copy, Debug)]
pub struct Lexical {
    dimension: usize,
}

/// A feature's sort, so that a word and a piece of one are never the same.
#[derive(Clone, Copy)]
enum Sort {
    Word = 1,
    Pair = 2,
    Piece = 3,
}

/// Letters from which a word has its whole weight.
const LETTERS_WHOLE: usize = 5;
/// Letters of a piece.
const PIECE: usize = 3;
/// Bytes from which on a text is long, and the bits that tell buckets of its features apart.
const LONG_BYTES: usize = 512;
const LONG_BITS: u32 = 8;

impl Lexical {
    /// An embedder whose vectors have `dimension` numbers, 1 at least.
    pub fn new(dimension: usize) -> Self {
        assert!(dimension > 0, "a vector has numbers");
        Self { dimension }
    }

    /// The vector of a text: its length is 1.
    ///
    /// # Errors
    /// When there is no word in the text.
    pub fn embed(&self, text: &str) -> Result<Vec<f32>, NoWords> {
        let mut embedding = self.begin(text);
        loop {
            let mut letters = usize::MAX;
            if let Some(vector) = embedding.step(&mut letters) {
                return vector;
            }
        }
    }

    /// Begins with a text, which goes on in steps.
    pub fn begin<'t>(&self, text: &'t str) -> Embedding<'t> {
        Embedding {
            dimension: self.dimension,
            text,
            letters: letters(text),
            phase: Phase::Reading,
            word: String::new(),
            sign: None,
            before: String::new(),
            bounded: Vec::new(),
            joined: String::new(),
            features: Features::of(text),
        }
    }
}

/// A text on its way to its vector.
pub struct Embedding<'t> {
    dimension: usize,
    text: &'t str,
    letters: Box<dyn Iterator<Item = char> + 't>,
    phase: Phase,
    /// The word that is being read.
    word: String,
    /// What ended it, where that is a word itself.
    sign: Option<char>,
    /// The word before; empty before the first.
    before: String,
    /// The letters of the word that was read last, with its ends.
    bounded: Vec<char>,
    joined: String,
    features: Features,
}

enum Phase {
    Reading,
    /// The pieces of the last word are counted from this one on, each with this weight.
    Pieces(usize, f64),
    /// All letters were read.
    Read,
    /// The features of this bucket and of those behind it are to be summed.
    Summing(usize, Vec<f64>),
}

impl Embedding<'_> {
    /// Goes on by so many letters, which it takes off; the vector when it has come to an end.
    pub fn step(&mut self, letters: &mut usize) -> Option<Result<Vec<f32>, NoWords>> {
        while *letters > 0 {
            *letters -= 1;
            match std::mem::replace(&mut self.phase, Phase::Reading) {
                Phase::Reading => self.read_letter(),
                Phase::Pieces(from, each) => self.count_pieces(from, each, letters),
                Phase::Read if self.before.is_empty() => return Some(Err(NoWords)),
                Phase::Read => self.phase = Phase::Summing(0, vec![0.0; self.dimension]),
                Phase::Summing(bucket, sums) if bucket == self.features.buckets.len() => {
                    return Some(Ok(self.normalised(sums)));
                }
                Phase::Summing(bucket, mut sums) => {
                    let summed = self.features.sum(bucket, &mut sums);
                    *letters = letters.saturating_sub(summed);
                    self.phase = Phase::Summing(bucket + 1, sums);
                }
            }
        }
        None
    }

    fn read_letter(&mut self) {
        if let Some(sign) = self.sign.take() {
            self.word.push(sign);
            return self.end_word();
        }
        let Some(letter) = self.letters.next() else {
            self.phase = Phase::Read;
            if !self.word.is_empty() {
                // What comes after it is the end again.
                self.letters = Box::new(std::iter::empty());
                self.end_word();
            }
            return;
        };
        let goes_on = is_mark(letter) && !self.word.is_empty();
        if goes_on || letter.is_alphanumeric() && !is_word_itself(letter) {
            return self.word.push(letter);
        }
        let is_sign = !letter.is_ascii() && !letter.is_whitespace() && !letter.is_control();
        if is_word_itself(letter) || is_sign && !is_mark(letter) && !is_punctuation(letter) {
            self.sign = Some(letter);
        }
        if !self.word.is_empty() {
            self.end_word();
        }
    }

    /// Counts the word that was read, and it and the one before as a pair; its pieces come next.
    fn end_word(&mut self) {
        let weight = weight(&self.word);
        self.features.add(hash(Sort::Word, &self.word), weight);
        if !self.before.is_empty() {
            self.joined.clear();
            self.joined.extend([&*self.before, " ", &*self.word]);
            let pair = hash(Sort::Pair, &self.joined);
            self.features.add(pair, weight.min(self::weight(&self.before)) / 2.0);
        }
        self.bounded.clear();
        self.bounded.push(' ');
        self.bounded.extend(self.word.chars());
        self.bounded.push(' ');
        std::mem::swap(&mut self.before, &mut self.word);
        self.word.clear();
        // A word of one letter has one piece, which says nothing beyond the word.
        self.phase = match self.bounded.len() > PIECE {
            true => {
                let pieces = self.bounded.len() - (PIECE - 1);
                Phase::Pieces(0, weight / 2.0 / (pieces as f64).sqrt())
            }
            false => Phase::Reading,
        };
    }

    fn count_pieces(&mut self, from: usize, each: f64, letters: &mut usize) {
        let mut next = from;
        for piece in self.bounded[from..].windows(PIECE).take(letters.saturating_add(1)) {
            self.joined.clear();
            self.joined.extend(piece);
            self.features.add(hash(Sort::Piece, &self.joined), each);
            next += 1;
        }
        *letters = letters.saturating_sub(next - from);
        let is_end = next + PIECE > self.bounded.len();
        self.phase = if is_end { Phase::Reading } else { Phase::Pieces(next, each) };
    }

    fn normalised(&self, mut sums: Vec<f64>) -> Vec<f32> {
        let norm = sums.iter().map(|sum| sum * sum).sum::<f64>().sqrt();
        if norm < 1e-6 {
            // All features cancelled each other, as they may where the dimensions are few.
            sums.fill(0.0);
            sums[(hash(Sort::Word, self.text) % self.dimension as u64) as usize] = 1.0;
            return sums.into_iter().map(|sum| sum as f32).collect();
        }
        sums.into_iter().map(|sum| (sum / norm) as f32).collect()
    }
}

/// The features of a text with their weights, by their highest bits.
struct Features {
    bits: u32,
    buckets: Vec<Vec<(u64, f64)>>,
}

impl Features {
    /// A long text has many buckets, so that one is soon summed.
    fn of(text: &str) -> Self {
        let bits = if text.len() > LONG_BYTES { LONG_BITS } else { 0 };
        Self { bits, buckets: vec![Vec::new(); 1 << bits] }
    }

    fn add(&mut self, feature: u64, weight: f64) {
        let bucket = feature.checked_shr(u64::BITS - self.bits).unwrap_or(0);
        self.buckets[bucket as usize].push((feature, weight));
    }

    /// Adds one bucket's features to the sums; how many there were. They are summed in one order, bucket
    /// by bucket, so that equal texts have equal vectors to the last bit.
    fn sum(&mut self, bucket: usize, sums: &mut [f64]) -> usize {
        let mut features = std::mem::take(&mut self.buckets[bucket]);
        // Stable: the weight of where a feature was seen first counts.
        features.sort_by_key(|(feature, _)| *feature);
        for same in features.chunk_by(|one, other| one.0 == other.0) {
            let (feature, weight) = same[0];
            let value = weight * (1.0 + (same.len() as f64).ln());
            let place = (feature >> 1) % sums.len() as u64;
            sums[place as usize] += if feature & 1 == 0 { value } else { -value };
        }
        features.len()
    }
}

/// How much a word counts: short ones are in every text.
fn weight(word: &str) -> f64 {
    let mut letters = word.chars();
    let is_ascii = word.is_ascii();
    let count = letters.by_ref().take(LETTERS_WHOLE).count();
    // Where letters are syllables or ideas, one says as much as five elsewhere.
    if is_ascii { count as f64 / LETTERS_WHOLE as f64 } else { 1.0 }
}

/// The letters of a text as they are compared.
fn letters(text: &str) -> Box<dyn Iterator<Item = char> + '_> {
    if text.is_ascii() {
        return Box::new(text.chars().map(|letter| letter.to_ascii_lowercase()));
    }
    // The small letters of the capitals: what Unicode's full case folding is but for a few letters.
    let folded = text.nfkc().flat_map(char::to_uppercase).flat_map(char::to_lowercase);
    Box::new(folded.nfkc())
}

/// Whether a letter is of a script that writes no spaces between words: Chinese characters and the
/// Japanese syllables.
fn is_word_itself(letter: char) -> bool {
    matches!(letter,
        '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}'
        | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{323af}')
}

/// Whether a sign belongs to the letter before it: accents, joiners and variants.
fn is_mark(letter: char) -> bool {
    let joins = matches!(letter, '\u{200c}'..='\u{200d}' | '\u{1f3fb}'..='\u{1f3ff}');
    joins || is_combining_mark(letter)
}

/// Whether a sign beyond ASCII only divides: quotes, dashes, the punctuation of Asia.
fn is_punctuation(letter: char) -> bool {
    matches!(letter,
        '\u{80}'..='\u{bf}' | '\u{2000}'..='\u{206f}' | '\u{3000}'..='\u{303f}'
        | '\u{ff00}'..='\u{ff0f}' | '\u{ff1a}'..='\u{ff20}' | '\u{feff}' | '\u{fffd}')
}

/// FNV-1a over the sort and the text, then mixed (the last step of SplitMix64) so that the lowest bits
/// know of all. It must never change: vectors of it are stored.
fn hash(sort: Sort, text: &str) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in std::iter::once(sort as u8).chain(text.bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash = (hash ^ hash >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ hash >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ hash >> 31
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The words of a text as they are compared.
    fn words(text: &str) -> Vec<String> {
        let (mut embedding, mut words) = (Lexical::new(2).begin(text), Vec::new());
        while !matches!(embedding.phase, Phase::Read) {
            let (had_word, had_sign) = (!embedding.word.is_empty(), embedding.sign.is_some());
            embedding.step(&mut 1);
            let ended = had_word && embedding.word.is_empty();
            if ended || had_sign && embedding.sign.is_none() {
                words.push(embedding.before.clone());
            }
        }
        words
    }

    const TEXTS: [&str; 8] = [
        "The deployment failed because the database migration timed out",
        "Deployments fail when a database migration times out",
        "Use retries with exponential backoff for flaky network calls",
        "Retry flaky network requests with an exponential backoff",
        "The user prefers short answers in German",
        "Unit tests must not depend on the order in which they run",
        "Привет, мир: база данных не отвечает",
        "База данных не отвечает на запросы",
    ];

    fn cosine(dimension: usize, a: &str, b: &str) -> f32 {
        let embed = |text| Lexical::new(dimension).embed(text).expect("it has words");
        embed(a).iter().zip(embed(b)).map(|(a, b)| a * b).sum()
    }

    #[test]
    fn texts_that_share_words_are_nearer_than_those_that_do_not() {
        for (pair, other) in [(0, 2), (2, 5), (6, 0), (2, 4), (0, 4), (6, 4)] {
            let near = cosine(384, TEXTS[pair], TEXTS[pair + 1]);
            let far = cosine(384, TEXTS[pair], TEXTS[other]);
            println!("near {near:.3}, far {far:.3}: {}", TEXTS[pair]);
            assert!(near > far + 0.15, "{near} and {far}: {} / {}", TEXTS[pair], TEXTS[other]);
        }
    }

    #[test]
    fn of_many_texts_the_nearest_is_the_one_that_says_the_same() {
        let embed = |text: &str| Lexical::new(384).embed(text).expect("it has words");
        let nearest = |query: &str| {
            let query = embed(query);
            let score =
                |text: &str| -> f32 { embed(text).iter().zip(&query).map(|(a, b)| a * b).sum() };
            let best = TEXTS.iter().max_by(|a, b| score(a).total_cmp(&score(b)));
            *best.expect("there are texts")
        };
        assert_eq!(nearest("when do deployments fail"), TEXTS[1]);
        assert_eq!(nearest("exponential back-off"), TEXTS[3]);
        assert_eq!(nearest("does the user like short answers"), TEXTS[4]);
        assert_eq!(nearest("order of unit tests"), TEXTS[5]);
        assert_eq!(nearest("запросы к базе данных"), TEXTS[7]);
    }

    #[test]
    fn case_space_and_punctuation_do_not_count() {
        let same = cosine(384, "Hello, World!", "  hello\tWORLD… ");
        assert!(same > 0.9999, "{same}");
        assert!(cosine(384, "Überall", "ÜBERALL") > 0.9999);
        assert!(cosine(384, "数据库迁移失败了", "因为数据库迁移超时") > 0.4);
        assert!(cosine(384, "数据库迁移失败了", "今天天气很好呀") < 0.2);
        assert!(cosine(384, "release 🚀 day", "🚀") > 0.3, "a sign is a word");
    }

    #[test]
    fn how_a_text_is_written_does_not_count() {
        for (one, other) in [
            ("caf\u{e9} cr\u{e8}me", "cafe\u{301} cre\u{300}me"),
            ("\u{fb01}nal of\u{fb01}ce", "final office"),
            ("\u{ff21}\u{ff30}\u{ff29} \u{ff11}\u{ff12}", "api 12"),
            ("Straße", "STRASSE"),
            ("ΣΊΣΥΦΟΣ", "σίσυφος"),
            ("\u{1112}\u{1161}\u{11ab}\u{1100}\u{1173}\u{11af}", "한글"),
            ("\u{ff76}\u{ff9e}", "ガ"),
            ("10 \u{212b}", "10 å"),
        ] {
            assert_eq!(words(one), words(other), "{one} and {other}");
            assert_eq!(Lexical::new(64).embed(one), Lexical::new(64).embed(other));
        }
        assert_eq!(words("हिन्दी में").len(), 2, "signs within a word do not divide it");
        assert!(cosine(384, "café", "cafe") < 0.9, "an accent is no matter of writing");
    }

    #[test]
    fn a_text_without_words_has_no_vector() {
        for text in ["", "   \n", "?!. -- «»", "\u{feff}\u{200d}"] {
            assert_eq!(Lexical::new(384).embed(text), Err(NoWords), "{text:?}");
        }
    }

    #[test]
    fn what_a_text_becomes_never_changes() {
        // Vectors of it are stored on disks: a change of these numbers breaks what is stored there.
        let vector = Lexical::new(8).embed("Never lose an accepted task").expect("words");
        let rounded: Vec<i32> =
            vector.iter().map(|number| (number * 1000.0).round() as i32).collect();
        assert_eq!(rounded, EXPECTED);
    }

    #[test]
    fn a_long_text_takes_many_steps_and_becomes_the_same() {
        let long = TEXTS.join(" ").repeat(20) + &"word".repeat(2000) + " 数据库迁移失败了";
        let lexical = Lexical::new(384);
        let whole = lexical.embed(&long).expect("it has words");
        for letters in [1, 7, 100] {
            let (mut embedding, mut steps) = (lexical.begin(&long), 0);
            let vector = loop {
                steps += 1;
                if let Some(vector) = embedding.step(&mut { letters }) {
                    break vector.expect("it has words");
                }
            };
            assert!(steps >= long.chars().count() / letters, "{steps} steps of {letters}");
            assert_eq!(vector, whole);
        }
        let mut in_one = lexical.begin(&long);
        in_one.features = Features::of("");
        assert_eq!(in_one.step(&mut { usize::MAX }), Some(Ok(whole)), "buckets change nothing");
    }

    proptest! {
        #[test]
        fn any_text_has_a_vector_of_length_one_or_none(text in ".{0,60}", dimension in 1usize..40) {
            if let Ok(vector) = Lexical::new(dimension).embed(&text) {
                prop_assert_eq!(vector.len(), dimension);
                let norm: f32 = vector.iter().map(|number| number * number).sum();
                prop_assert!((norm - 1.0).abs() < 1e-4, "{}", norm);
                prop_assert_eq!(&Lexical::new(dimension).embed(&text).expect("again"), &vector);
            }
        }
    }

    const EXPECTED: [i32; 8] = [777, 101, -132, -15, 15, 490, 31, -357];
}
