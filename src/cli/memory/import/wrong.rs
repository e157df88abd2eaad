//! The records that are wrong: the first ones by their place and reason, all of them as a number.

use super::super::super::remote::Trouble;
use crate::wire::json;
use std::fmt::Write;

/// Records that are told.
const TOLD: usize = 20;
/// Wrong records after which the file itself is taken to be the wrong one.
const MOST: u64 = 1000;
/// Letters of a reason that are told.
const REASON_LETTERS: usize = 300;

/// Wrong records of one file.
pub(super) struct Wrong {
    unit: &'static str,
    count: u64,
    told: Vec<(u64, String)>,
}

impl Wrong {
    /// None yet; `unit` is what positions count.
    pub(super) fn new(unit: &'static str) -> Self {
        Self { unit, count: 0, told: Vec::new() }
    }

    /// What positions count.
    pub(super) fn unit(&self) -> &'static str {
        self.unit
    }

    /// Takes note of one.
    ///
    /// # Errors
    /// When there are more than are passed over.
    pub(super) fn note(&mut self, position: u64, reason: &str) -> Result<(), Trouble> {
        self.count += 1;
        // Answers come in the order of the records but for a few.
        let place = self.told.partition_point(|(told, _)| *told < position);
        if place < TOLD {
            let reason = reason.chars().take(REASON_LETTERS).collect();
            self.told.insert(place, (position, reason));
            self.told.truncate(TOLD);
        }
        match self.count > MOST {
            true => Err(Trouble::Failed(format!("more than {MOST} {}s are wrong", self.unit))),
            false => Ok(()),
        }
    }

    /// What to tell of them; nothing when there are none.
    pub(super) fn text(&self) -> Option<String> {
        let mut text = match self.count {
            0 => return None,
            1 => format!("1 {} is wrong and not stored:", self.unit),
            count => format!("{count} {}s are wrong and not stored:", self.unit),
        };
        for (position, reason) in &self.told {
            let _ = write!(text, "\n  {} {position}: {reason}", self.unit);
        }
        let more = self.count - self.told.len() as u64;
        if more > 0 {
            let _ = write!(text, "\n  and {more} more");
        }
        Some(text)
    }

    /// The same as fields of JSON, each after a comma; nothing when there are none.
    pub(super) fn json_fields(&self) -> String {
        if self.count == 0 {
            return String::new();
        }
        let told = self.told.iter().map(|(position, reason)| {
            let mut quoted = Vec::new();
            json::string(&mut quoted, reason);
            let quoted = String::from_utf8_lossy(&quoted).into_owned();
            format!(r#"{{"{}":{position},"reason":{quoted}}}"#, self.unit)
        });
        let told = told.collect::<Vec<_>>().join(",");
        format!(r#","wrong_count":{},"wrong":[{told}]"#, self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_ones_are_told_and_all_are_counted() {
        let mut wrong = Wrong::new("row");
        assert_eq!((wrong.text(), wrong.json_fields()), (None, String::new()));
        assert!(wrong.note(7, "a \"b\"").is_ok());
        assert_eq!(wrong.text().unwrap(), "1 row is wrong and not stored:\n  row 7: a \"b\"");
        let fields = r#","wrong_count":1,"wrong":[{"row":7,"reason":"a \"b\""}]"#;
        assert_eq!(wrong.json_fields(), fields);
        for position in (8..600).chain(0..7) {
            assert!(wrong.note(position, &"é".repeat(1000)).is_ok());
        }
        let text = wrong.text().unwrap();
        assert!(text.starts_with("600 rows are wrong and not stored:\n  row 0: éé"), "{text}");
        assert!(
            text.ends_with("\n  and 580 more") && text.chars().count() < 7000,
            "{}",
            text.len()
        );
        let outcomes: Vec<_> = (0..401).map(|position| wrong.note(position, "").is_ok()).collect();
        assert!(outcomes[..400].iter().all(|well| *well) && !outcomes[400]);
    }
}
