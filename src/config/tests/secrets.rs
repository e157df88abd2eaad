//! The files with secrets that a configuration names.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

/// A file with that mode that disappears with its owner.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str, text: &str, mode: u32) -> Self {
        let path = std::env::temp_dir().join(format!("coreflow-{}-{name}", std::process::id()));
        fs::write(&path, text).expect("the temporary directory is writable");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("the file is mine");
        Self(path)
    }

    fn config(&self) -> Config {
        let path = self.0.display();
        valid(&format!("[server]\ntoken_file = \"{path}\"\n[cluster]\nsecret_file = \"{path}\""))
    }

    fn problem(&self) -> String {
        self.config().token().expect_err("refused").to_string()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn no_file_means_no_secret() {
    let config = Config::default();
    assert!(config.token().expect("none").is_none());
    assert!(config.cluster_secret().expect("none").is_none());
}

#[test]
fn a_secret_is_read_without_the_blanks_around_it() {
    let config = Scratch::new("good", "0123456789abcdef\n", 0o640);
    let secrets = [config.config().token(), config.config().cluster_secret()];
    for secret in secrets {
        assert_eq!(secret.expect("good").expect("named").expose(), "0123456789abcdef");
    }
}

#[test]
fn a_file_that_everybody_reads_or_changes_holds_no_secret() {
    for mode in [0o644, 0o602] {
        let problem = Scratch::new(&format!("open-{mode:o}"), "0123456789abcdef", mode).problem();
        assert!(problem.starts_with("server.token_file = \"/"), "{problem}");
        assert!(problem.ends_with("forbid it: chmod o= FILE"), "{problem}");
    }
}

#[test]
fn errors_name_the_key_and_the_file() {
    let short = Scratch::new("short", "0123\n", 0o600);
    let problem = short.config().cluster_secret().expect_err("short").to_string();
    assert!(problem.starts_with("cluster.secret_file = \"/"), "{problem}");
    assert!(problem.contains("4 bytes are too few; allowed: 16 to 1024"), "{problem}");
    assert!(Scratch::new("long", &"x".repeat(5000), 0o600).problem().contains("too many"));
    let missing = valid("[server]\ntoken_file = \"/nowhere/token\"");
    let error = std::io::Error::from(missing.token().expect_err("not there"));
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    let text = "server.token_file = \"/nowhere/token\": the file cannot be read: ";
    assert!(error.to_string().starts_with(text), "{error}");
}

#[test]
fn a_key_is_read_by_its_owner_alone() {
    let key = "07".repeat(32);
    let config = |scratch: &Scratch| {
        valid(&format!("[consensus]\nidentity_file = \"{}\"", scratch.0.display())).identity()
    };
    let good = Scratch::new("key", &format!("{key}\n"), 0o600);
    assert_eq!(config(&good).expect("good"), Some([7; 32]));
    assert!(valid("").identity().expect("none").is_none());
    let shared = config(&Scratch::new("shared-key", &key, 0o640)).expect_err("refused").to_string();
    assert!(shared.starts_with("consensus.identity_file = \"/"), "{shared}");
    assert!(shared.ends_with("forbid it: chmod 600 FILE"), "{shared}");
    for text in [&key[1..], "07070707070707070707070707070707", &key.replace("07", "0g")] {
        let wrong =
            config(&Scratch::new("wrong-key", text, 0o600)).expect_err("refused").to_string();
        assert!(wrong.contains("64 hexadecimal digits"), "{wrong}");
    }
}
