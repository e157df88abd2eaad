//! `[[agent]]` entries: what is read and what is refused.

use super::*;

fn entry(keys: &str) -> String {
    format!("# one\n[[agent]]\n{keys}")
}

#[test]
fn each_kind_is_read() {
    let config = valid(
        "[[agent]]\ntype = \"echo\"\nkind = \"builtin\"\nmax_tasks = 9\n\
         [[agent]]\ntype = \"coder\"\nkind = \"exec\"\ncommand = [\"python3\", \"coder.py\"]\n\
         min = 0\nmax = 1\nidle_timeout_ms = 5\nwarmup_delay_ms = 0\n\
         capabilities = [\"rust\", \"code review\"]\n\
         [[agent]]\ntype = \"far\"\nkind = \"remote\"\n",
    );
    assert_eq!(config.agent[0].max_tasks, 9);
    let command = vec!["python3".to_owned(), "coder.py".to_owned()];
    let coder = AgentType {
        name: "coder".to_owned(),
        kind: AgentKind::Exec { command },
        min: 0,
        max: 1,
        max_tasks: 5,
        idle_timeout_ms: 5,
        warmup_delay_ms: 0,
        capabilities: vec!["rust".to_owned(), "code review".to_owned()],
    };
    assert_eq!(config.agent[1], coder);
    assert_eq!((&config.agent[2].kind, config.agent[2].min), (&AgentKind::Remote, 0));
}

#[test]
fn capabilities_are_a_few_short_words_each_once() {
    let refused = |list: &str| {
        refusal(&entry(&format!("type = \"echo\"\nkind = \"builtin\"\ncapabilities = {list}")))
    };
    let many: Vec<_> = (0..17).map(|number| format!("\"{number}\"")).collect();
    for (list, why) in [
        (r#"["a", "b", "a"]"#, "\"a\" is listed twice"),
        (r#"[""]"#, "a capability of 0 bytes"),
        (&format!("[\"{}\"]", "w".repeat(33)), "a capability of 33 bytes"),
        (r#"["a\tb"]"#, "control character"),
        ("[1]", "a capability is a string, not an integer"),
        (r#""rust""#, "must be a list of strings, not a string"),
        (&format!("[{}]", many.join(", ")), "17 capabilities are too many"),
    ] {
        let error = refused(list);
        assert!(error.starts_with("t.toml:5: agent.echo.capabilities: "), "{error}");
        assert!(error.contains(why) && error.contains("allowed: a list of up to 16"), "{error}");
    }
}

#[test]
fn an_empty_list_has_no_agent_types() {
    assert_eq!(valid("agent = []").agent, []);
}

#[test]
fn type_and_kind_must_be_given_and_the_entry_is_named() {
    let all = refusals(&entry(""));
    assert!(all[0].starts_with("t.toml:2: agent[0].type: must be given"), "{all:?}");
    assert!(all[1].starts_with("t.toml:2: agent[0].kind: must be given"), "{all:?}");
    assert!(refusal(&entry("type = \"echo\"")).starts_with("t.toml:2: agent.echo.kind: must"));
}

#[test]
fn errors_of_an_entry_point_to_its_own_lines() {
    let text = entry("kind = \"builtin\"\nmax = 0\ntype = \"echo\"\nmaxtasks = 1");
    let all = refusals(&text);
    assert!(all[0].starts_with("t.toml:4: agent.echo.max: 0 is too small"), "{all:?}");
    assert!(all[1].starts_with("t.toml:6: agent.echo.maxtasks: no such key; did"), "{all:?}");
}

#[test]
fn a_builtin_that_does_not_exist_is_refused() {
    let error = refusal(&entry("type = \"coder\"\nkind = \"builtin\""));
    assert!(error.contains("agent.coder.type: \"coder\" is not part of this"), "{error}");
    assert!(error.ends_with("allowed builtins: echo, sleep, sha256"), "{error}");
}

#[test]
fn a_kind_that_does_not_exist_is_refused() {
    let error = refusal(&entry("type = \"a\"\nkind = \"execs\""));
    assert!(error.contains("agent.a.kind: \"execs\" is not known (did you mean \"exec\"?)"));
}

#[test]
fn a_command_is_for_exec_and_only_for_exec() {
    let missing = refusal(&entry("type = \"a\"\nkind = \"exec\""));
    assert!(missing.starts_with("t.toml:2: agent.a.command: must be given"), "{missing}");
    let stray = refusal(&entry("type = \"a\"\nkind = \"remote\"\ncommand = [\"a\"]"));
    assert!(stray.starts_with("t.toml:5: agent.a.command: kind \"remote\" has no"), "{stray}");
    let problem = |command: &str| {
        refusal(&entry(&format!("type = \"a\"\nkind = \"exec\"\ncommand = {command}")))
    };
    assert!(problem("[]").contains("the command is empty"));
    assert!(problem("[\"\"]").contains("the program's name is empty"));
    assert!(problem("[\"a\", 1]").contains("a word of a command is a string"));
    assert!(problem("\"a b\"").contains("must be a list of strings, not a string"));
    assert!(problem("[\"a\\u0000\"]").contains("zero byte"));
    assert!(problem(&format!("[\"{}\"]", "a".repeat(5000))).contains("5000 bytes"));
    assert!(problem(&format!("[{}]", "\"a\",".repeat(300))).contains("300 words"));
}

#[test]
fn a_pool_whose_min_is_above_its_max_is_refused() {
    let kind = "type = \"echo\"\nkind = \"builtin\"\n";
    let error = refusal(&entry(&format!("{kind}min = 9\nmax = 8")));
    assert!(error.starts_with("t.toml:5: agent.echo.min: min is 9 and max is 8"), "{error}");
    let error = refusal(&entry(&format!("{kind}max = 2")));
    assert!(error.starts_with("t.toml:5: agent.echo.max: min is 5 and max is 2"), "{error}");
    let error = refusal(&entry("type = \"a\"\nkind = \"remote\"\nmin = 1"));
    assert!(error.starts_with("t.toml:5: agent.a.min: kind \"remote\" cannot"), "{error}");
}

#[test]
fn a_name_that_is_taken_or_unfit_is_refused() {
    let twice = "[[agent]]\ntype = \"echo\"\nkind = \"builtin\"\n".repeat(2);
    let error = refusal(&twice);
    assert!(error.starts_with("t.toml:5: agent.echo.type: \"echo\" was defined before in line 2"));
    let problem = |name: &str| refusal(&entry(&format!("type = {name}\nkind = \"remote\"")));
    assert!(problem("\"\"").contains("the name is empty"));
    assert!(problem("\"a b\"").contains("' ' may not be part of a name"));
    assert!(problem(&format!("\"{}\"", "a".repeat(65))).contains("65 bytes long"));
    assert!(problem("5").contains("must be a string, not an integer"));
}
