//! Which embedder made the vectors of a folder's texts: a line in the folder, so that a node with
//! another one can tell that what it makes cannot be compared with what is there.

use super::LEXICAL_NAME;
use crate::runtime::disk::replace_file;
use std::{fs, io, path::Path};

/// The file in the folder.
const FILE: &str = "embedder";
/// Letters of a name that are compared: a command may be long.
const NAME_LETTERS: usize = 4096;
/// What made the vectors before there was such a file.
const BEFORE: &str = "lexical";

/// Takes note of the embedder `name` where none is known or nothing is stored; the name of another one
/// that made what is there.
///
/// # Errors
/// The file cannot be read or written.
pub fn note(folder: &Path, is_empty: bool, name: &str) -> io::Result<Option<String>> {
    let name: String = name.replace('\n', " ").chars().take(NAME_LETTERS).collect();
    let file = folder.join(FILE);
    let known = match fs::read_to_string(&file) {
        Ok(text) => Some(text.trim_end_matches('\n').to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            (name == LEXICAL_NAME && !is_empty).then(|| BEFORE.to_owned())
        }
        Err(error) => return Err(error),
    };
    match known.filter(|known| !is_empty && *known != name) {
        Some(other) => Ok(Some(other)),
        None => replace_file(&file, format!("{name}\n").as_bytes()).map(|()| None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_embedder_is_told_for_as_long_as_its_vectors_are_there() {
        let folder = std::env::temp_dir().join(format!("coreflow-origin-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let note = |is_empty, name| note(&folder, is_empty, name).unwrap();
        assert_eq!(note(false, LEXICAL_NAME), Some("lexical".into()), "a folder of before");
        assert_eq!(note(true, LEXICAL_NAME), None);
        assert_eq!(note(false, LEXICAL_NAME), None);
        assert_eq!(note(false, "exec python3\nmodel.py"), Some(LEXICAL_NAME.into()));
        assert_eq!(note(false, LEXICAL_NAME), None, "and the first one is still known");
        assert_eq!(note(true, "exec python3\nmodel.py"), None, "nothing is left of it");
        assert_eq!(note(false, LEXICAL_NAME), Some("exec python3 model.py".into()));
        fs::remove_dir_all(&folder).unwrap();
    }
}
