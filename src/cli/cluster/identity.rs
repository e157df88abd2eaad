//! `coreflow cluster identity FILE`: the key that a node signs with.

use crate::{config, consensus::pbft::keys::Identity};
use std::{
    fs::OpenOptions,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// Makes a secret key in a file that only its owner may read, unless there is one, and tells the public
/// key, as hexadecimal digits.
///
/// # Errors
/// The file cannot be made, or what is there is no key or may be read by others.
pub(super) fn public_key(file: &Path) -> io::Result<String> {
    make(file)?;
    let secret = config::identity(file)?;
    Ok(config::PublicKey(Identity::from_secret(&secret).public()).to_string())
}

fn make(file: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut opened = match options.write(true).create_new(true).mode(0o600).open(file) {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        Err(error) => {
            return Err(io::Error::new(error.kind(), format!("{}: {error}", file.display())));
        }
    };
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(io::Error::other)?;
    writeln!(opened, "{}", config::PublicKey(secret))?;
    opened.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::PermissionsExt};

    #[test]
    fn a_key_is_made_once_and_only_its_owner_may_read_it() {
        let file = std::env::temp_dir().join(format!("coreflow-identity-{}", std::process::id()));
        let _ = fs::remove_file(&file);
        let made = public_key(&file).expect("it is made");
        assert_eq!(made.len(), 64);
        assert_eq!(fs::metadata(&file).expect("it is there").permissions().mode() & 0o777, 0o600);
        assert_eq!(public_key(&file).expect("it is there"), made);
        let secret = fs::read_to_string(&file).expect("it is mine");
        assert_ne!(secret.trim(), made, "the secret is not what is printed");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("it is mine");
        let refused = public_key(&file).expect_err("everybody reads it").to_string();
        assert!(refused.contains("chmod 600"), "{refused}");
        fs::remove_file(&file).expect("it is mine");
        let nowhere = public_key(Path::new("/nowhere/key")).expect_err("no folder").to_string();
        assert!(nowhere.starts_with("/nowhere/key: "), "{nowhere}");
    }
}
